// Cleans one flight, or a file of them: a row each that holds together, and how late it was.
// A row is bad when a field is missing or out of range, when its delay does not follow from its times,
// or when the aeroplane took off and never arrived. The first bad row ends the program with code 1 and
// the reason on standard error: run it with a sandbox for each row, and the others go on.
#include "csv.h"

static const char *const COLUMNS[] = {
    "year",     "month",          "day",       "dep_time", "sched_dep_time", "dep_delay", "arr_time",
    "sched_arr_time", "arr_delay", "carrier",  "flight",   "tailnum",        "origin",    "dest",
    "air_time", "distance",       "hour",      "minute",   "time_hour"};

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

// Prints the row; NULL, or why it is bad.
static const char *clean(const Row *row) {
  char *const *f = row->fields;
  int year, month, day, scheduled, hour, flight, distance, departed, delay, arrival;
  if (row->broken || row->count != 19) return "wrong number of fields";
  if (!read_int(f[0], 1900, 2100, &year) || !read_int(f[1], 1, 12, &month) || !read_int(f[2], 1, 31, &day)) return "no such date";
  if (!read_clock(f[4], &scheduled) || !read_int(f[16], 0, 23, &hour) || scheduled / 60 % 24 != hour) return "no such schedule";
  if (!is_code(f[9], 2) || !is_code(f[12], 3) || !is_code(f[13], 3) || !read_int(f[10], 1, 9999, &flight) ||
      !read_int(f[15], 1, 20000, &distance))
    return "no such flight";
  if (same(f[3], "NA") && same(f[5], "NA")) {
    printf("%04d-%02d-%02d,%d,%s,%d,%s,%s,%d,,cancelled\n", year, month, day, hour, f[9], flight, f[12], f[13], distance);
    return NULL;
  }
  if (!read_clock(f[3], &departed) || !read_int(f[5], -1440, 2880, &delay)) return "no such departure";
  if (((departed - scheduled - delay) % 1440 + 1440) % 1440 != 0) return "its delay does not follow from its times";
  if (!read_int(f[8], -1440, 2880, &arrival)) return "it took off and has no arrival";
  printf("%04d-%02d-%02d,%d,%s,%d,%s,%s,%d,%d,flown\n", year, month, day, hour, f[9], flight, f[12], f[13], distance, delay);
  return NULL;
}

int main(void) {
  static Row row;
  expect_header(&row, COLUMNS, 19);
  puts("date,hour,carrier,flight,origin,dest,distance,dep_delay,status");
  while (read_row(&row)) {
    const char *fault = clean(&row);
    if (fault == NULL) continue;
    fprintf(stderr, "flight %s %s: %s\n", row.count > 10 ? row.fields[9] : "?", row.count > 10 ? row.fields[10] : "?", fault);
    return 1;
  }
  return 0;
}
