// Cleans flights: one row for each that holds together, with what became of it.
// A row is rejected when a field is missing or out of range, or when its delay does not follow from
// its times. Reasons are counted on standard error.
#include "csv.h"

static const char *const COLUMNS[] = {
    "year",     "month",          "day",       "dep_time", "sched_dep_time", "dep_delay", "arr_time",
    "sched_arr_time", "arr_delay", "carrier",  "flight",   "tailnum",        "origin",    "dest",
    "air_time", "distance",       "hour",      "minute",   "time_hour"};

enum { FIELDS, DATE, SCHEDULE, PLACE, TIMES, DELAY, REASONS };
static const char *const REASON[REASONS] = {"wrong number of fields", "no such date",    "no such schedule",
                                            "no such place",          "no such departure", "delay does not follow from the times"};

static int is_code(const char *text, size_t length) {
  if (strlen(text) != length) return 0;
  for (; *text; text++)
    if (!((*text >= 'A' && *text <= 'Z') || (*text >= '0' && *text <= '9'))) return 0;
  return 1;
}

// "1745" is 17:45; 1 and the minutes since midnight when it is a time of day. Midnight is 2400.
static int read_clock(const char *text, int *minutes) {
  int clock;
  if (!read_int(text, 0, 2400, &clock) || clock % 100 > 59) return 0;
  *minutes = clock / 100 * 60 + clock % 100;
  return 1;
}

int main(void) {
  static Row row;
  long rejected[REASONS] = {0}, flown = 0, diverted = 0, cancelled = 0, total = 0;
  expect_header(&row, COLUMNS, 19);
  puts("date,hour,carrier,flight,origin,dest,distance,dep_delay,status");
  while (read_row(&row)) {
    char **f = row.fields;
    int year, month, day, scheduled, hour, flight, distance, departed, delay, arrival;
    const char *status;
    total++;
    if (row.broken || row.count != 19) {
      rejected[FIELDS]++;
      continue;
    }
    if (!read_int(f[0], 1900, 2100, &year) || !read_int(f[1], 1, 12, &month) || !read_int(f[2], 1, 31, &day)) {
      rejected[DATE]++;
      continue;
    }
    if (!read_clock(f[4], &scheduled) || !read_int(f[16], 0, 23, &hour) || scheduled / 60 % 24 != hour) {
      rejected[SCHEDULE]++;
      continue;
    }
    if (!is_code(f[9], 2) || !is_code(f[12], 3) || !is_code(f[13], 3) || !read_int(f[10], 1, 9999, &flight) ||
        !read_int(f[15], 1, 20000, &distance)) {
      rejected[PLACE]++;
      continue;
    }
    if (same(f[3], "NA") && same(f[5], "NA")) {
      cancelled++;
      printf("%04d-%02d-%02d,%d,%s,%d,%s,%s,%d,,cancelled\n", year, month, day, hour, f[9], flight, f[12], f[13], distance);
      continue;
    }
    if (!read_clock(f[3], &departed) || !read_int(f[5], -1440, 2880, &delay)) {
      rejected[TIMES]++;
      continue;
    }
    if (((departed - scheduled - delay) % 1440 + 1440) % 1440 != 0) {
      rejected[DELAY]++;
      continue;
    }
    status = read_int(f[8], -1440, 2880, &arrival) ? "flown" : "diverted";
    if (*status == 'f')
      flown++;
    else
      diverted++;
    printf("%04d-%02d-%02d,%d,%s,%d,%s,%s,%d,%d,%s\n", year, month, day, hour, f[9], flight, f[12], f[13], distance, delay, status);
  }
  fprintf(stderr, "%ld rows: %ld flown, %ld diverted, %ld cancelled, %ld rejected\n", total, flown, diverted, cancelled,
          total - flown - diverted - cancelled);
  for (int i = 0; i < REASONS; i++)
    if (rejected[i]) fprintf(stderr, "rejected: %ld for %s\n", rejected[i], REASON[i]);
  return 0;
}
