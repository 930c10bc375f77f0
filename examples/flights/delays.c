// Statistics of the departure delay by carrier, airport and hour of the day, from clean flights.
// Integers only, so that every machine prints the same digits: the mean is rounded half up to a
// tenth, percentiles are by nearest rank, late is more than 15 minutes.
#include "csv.h"

static const char *const COLUMNS[] = {"date", "hour", "carrier", "flight", "origin", "dest", "distance", "dep_delay", "status"};

enum { LEAST = -1440, MOST = 2880, DELAYS = MOST - LEAST + 1, GROUPS = 256, KEY = 8, LATE = 15 };

typedef struct {
  const char *kind;
  char key[KEY];
  long flights, cancelled, late, sum;
  unsigned *delays;  // how many flights had each delay
} Group;

static Group groups[GROUPS];
static int group_count;

static Group *find(const char *kind, const char *key) {
  for (int i = 0; i < group_count; i++)
    if (groups[i].kind == kind && same(groups[i].key, key)) return &groups[i];
  if (group_count == GROUPS || strlen(key) >= KEY) {
    fprintf(stderr, "too many groups, or a key too long: %s %s\n", kind, key);
    exit(3);
  }
  Group *group = &groups[group_count++];
  group->kind = kind;
  strcpy(group->key, key);
  group->delays = calloc(DELAYS, sizeof *group->delays);
  if (!group->delays) {
    fprintf(stderr, "out of memory at group %d\n", group_count);
    exit(4);
  }
  return group;
}

static void add(Group *group, int cancelled, int delay) {
  group->flights++;
  if (cancelled) {
    group->cancelled++;
    return;
  }
  group->delays[delay - LEAST]++;
  group->sum += delay;
  group->late += delay > LATE;
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

static int by_kind_and_key(const void *a, const void *b) {
  const Group *left = a, *right = b;
  int kind = strcmp(left->kind, right->kind);
  return kind ? kind : strcmp(left->key, right->key);
}

int main(void) {
  static Row row;
  static const char CARRIER[] = "carrier", HOUR[] = "hour", ORIGIN[] = "origin", TOTAL[] = "total";
  long line = 1;
  expect_header(&row, COLUMNS, 9);
  while (read_row(&row)) {
    char **f = row.fields, hour_key[KEY];
    int hour, delay = 0, cancelled = row.count == 9 && same(f[8], "cancelled");
    line++;
    if (row.broken || row.count != 9 || !read_int(f[1], 0, 23, &hour) || (!cancelled && !read_int(f[7], LEAST, MOST, &delay))) {
      fprintf(stderr, "line %ld is no clean flight\n", line);
      return 2;
    }
    snprintf(hour_key, KEY, "%02d", hour);
    add(find(CARRIER, f[2]), cancelled, delay);
    add(find(HOUR, hour_key), cancelled, delay);
    add(find(ORIGIN, f[4]), cancelled, delay);
    add(find(TOTAL, "all"), cancelled, delay);
  }
  qsort(groups, group_count, sizeof *groups, by_kind_and_key);
  puts("group,key,flights,cancelled,mean_delay,median_delay,p90_delay,late_percent");
  for (int i = 0; i < group_count; i++) {
    Group *group = &groups[i];
    long left = group->flights - group->cancelled;
    printf("%s,%s,%ld,%ld", group->kind, group->key, group->flights, group->cancelled);
    if (left == 0) {
      puts(",,,,");
      continue;
    }
    print_tenths(tenths(group->sum, left));
    printf(",%d,%d", percentile(group, left, 50), percentile(group, left, 90));
    print_tenths(tenths(group->late * 100, left));
    puts("");
  }
  fprintf(stderr, "%ld flights in %d groups\n", line - 1, group_count);
  return 0;
}
