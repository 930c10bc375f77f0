// Adds up what count.c counted of several parts, its outputs in a JSON list, to statistics of the departure
// delay. Integers only, so that every machine prints the same digits: the mean is rounded half up to a
// tenth, percentiles are by nearest rank, late is more than 15 minutes.
#include "csv.h"
#include "groups.h"

enum { LATE = 15, VALUE = 32 };

// The next string, number or null of the JSON on standard input, whatever lists it is in; 0 at its end.
static int read_value(char *text) {
  int c, length = 0;
  while ((c = getchar()) != EOF && strchr(" \t\r\n,[]", c)) continue;
  if (c == EOF) return 0;
  const char *end = c == '"' ? "\"" : " \t\r\n,[]";
  for (c = c == '"' ? getchar() : c; c != EOF && !strchr(end, c); c = getchar())
    if (length < VALUE - 1) text[length++] = (char)c;
  text[length] = '\0';
  return 1;
}

static int add_row(void) {
  char kind[VALUE], key[VALUE], delay[VALUE], flights[VALUE];
  int minutes = 0, count, cancelled;
  if (!read_value(kind)) return 0;
  int whole = read_value(key) && read_value(delay) && read_value(flights);
  cancelled = whole && same(delay, "null");
  if (!whole || !read_int(flights, 1, 100000000, &count) || (!cancelled && !read_int(delay, LEAST, MOST, &minutes))) {
    fprintf(stderr, "after %s: this is no list of what count.c counts\n", kind);
    exit(2);
  }
  Group *group = find(kind, key);
  if (cancelled)
    group->cancelled += count;
  else
    group->delays[minutes - LEAST] += count;
  return 1;
}

static long floor_div(long a, long b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

// value / count, rounded half up, in tenths.
static long tenths(long value, long count) { return floor_div(value * 20 + count, 2 * count); }

static void print_tenths(long value) { printf(",%s%ld.%ld", value < 0 ? "-" : "", labs(value) / 10, labs(value) % 10); }

// The smallest delay that at least `percent` of the flights do not exceed.
static int percentile(const Group *group, long count, int percent) {
  long rank = (count * percent + 99) / 100, seen = 0;
  for (int i = 0; i < DELAYS; i++) {
    seen += group->delays[i];
    if (seen >= rank) return i + LEAST;
  }
  return MOST;
}

static void print_group(const Group *group) {
  long left = 0, sum = 0, late = 0;
  for (int i = 0; i < DELAYS; i++) {
    left += group->delays[i];
    sum += (long)group->delays[i] * (i + LEAST);
    if (i + LEAST > LATE) late += group->delays[i];
  }
  printf("%s,%s,%ld,%ld", group->kind, group->key, left + group->cancelled, group->cancelled);
  if (left == 0) {
    puts(",,,,");
    return;
  }
  print_tenths(tenths(sum, left));
  printf(",%d,%d", percentile(group, left, 50), percentile(group, left, 90));
  print_tenths(tenths(late * 100, left));
  puts("");
}

int main(void) {
  long rows = 0;
  while (add_row()) rows++;
  qsort(groups, group_count, sizeof *groups, by_kind_and_key);
  puts("group,key,flights,cancelled,mean_delay,median_delay,p90_delay,late_percent");
  for (int i = 0; i < group_count; i++) print_group(&groups[i]);
  fprintf(stderr, "%d groups out of %ld counts\n", group_count, rows);
  return 0;
}
