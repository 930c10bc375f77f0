// Counts clean flights by carrier, airport and hour of the day, as JSON: [["carrier", "UA", 15, 3], ...] is
// three flights of UA that left 15 minutes late; null in place of a delay is cancelled. What comes out of
// several parts can be added up: see merge.c.
#include "flight.h"
#include "groups.h"

static void add(Group *group, int cancelled, int delay) {
  if (cancelled)
    group->cancelled++;
  else
    group->delays[delay - LEAST]++;
}

int main(void) {
  static Row row;
  long line = 1;
  expect_header(&row, CLEAN, 9);
  while (read_row(&row)) {
    char **f = row.fields, hour_key[KEY];
    int hour, delay = 0, cancelled = row.count == 9 && same(f[8], "cancelled");
    line++;
    if (row.broken || row.count != 9 || !read_int(f[1], 0, 23, &hour) || (!cancelled && !read_int(f[7], LEAST, MOST, &delay))) {
      fprintf(stderr, "line %ld is no clean flight\n", line);
      return 2;
    }
    snprintf(hour_key, KEY, "%02d", hour);
    add(find("carrier", f[2]), cancelled, delay);
    add(find("hour", hour_key), cancelled, delay);
    add(find("origin", f[4]), cancelled, delay);
    add(find("total", "all"), cancelled, delay);
  }
  qsort(groups, group_count, sizeof *groups, by_kind_and_key);
  char separator = '[';
  for (int i = 0; i < group_count; i++) {
    const Group *group = &groups[i];
    if (group->cancelled) {
      printf("%c\n[\"%s\", \"%s\", null, %ld]", separator, group->kind, group->key, group->cancelled);
      separator = ',';
    }
    for (int j = 0; j < DELAYS; j++) {
      if (!group->delays[j]) continue;
      printf("%c\n[\"%s\", \"%s\", %d, %u]", separator, group->kind, group->key, j + LEAST, group->delays[j]);
      separator = ',';
    }
  }
  puts(separator == '[' ? "[]" : "\n]");
  return 0;
}
