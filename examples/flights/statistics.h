// Reads what merge.c writes, for the report and the chart.
#pragma once
#include "csv.h"

enum { LINES = 256, TEXT = 24 };
enum { FEW = 100 };  // with fewer flights a share says nothing

typedef struct {
  char group[TEXT], key[TEXT], mean[TEXT], median[TEXT], p90[TEXT], late[TEXT];
  int flights, cancelled, late_tenths;
} Line;

static Line lines[LINES];
static int line_count;

static const char *const STATISTICS[] = {"group", "key", "flights", "cancelled", "mean_delay", "median_delay", "p90_delay", "late_percent"};

static const char *const AIRLINES[][2] = {
    {"9E", "Endeavor Air"},     {"AA", "American Airlines"}, {"AS", "Alaska Airlines"},   {"B6", "JetBlue Airways"},
    {"DL", "Delta Air Lines"},  {"EV", "ExpressJet"},        {"F9", "Frontier Airlines"}, {"FL", "AirTran Airways"},
    {"HA", "Hawaiian Airlines"}, {"MQ", "Envoy Air"},        {"OO", "SkyWest Airlines"},  {"UA", "United Air Lines"},
    {"US", "US Airways"},       {"VX", "Virgin America"},    {"WN", "Southwest Airlines"}, {"YV", "Mesa Airlines"}};

static const char *const AIRPORTS[][2] = {{"EWR", "Newark"}, {"JFK", "John F. Kennedy"}, {"LGA", "LaGuardia"}};

static const char *name_of(const char *const names[][2], int count, const char *key) {
  for (int i = 0; i < count; i++)
    if (same(names[i][0], key)) return names[i][1];
  return key;
}

#define AIRLINE(key) name_of(AIRLINES, sizeof AIRLINES / sizeof *AIRLINES, key)
#define AIRPORT(key) name_of(AIRPORTS, sizeof AIRPORTS / sizeof *AIRPORTS, key)

// "12.3" is 123.
static int tenths_of(const char *text) {
  int value = 0;
  for (; *text; text++)
    if (*text >= '0' && *text <= '9') value = value * 10 + (*text - '0');
  return value;
}

static void copy(char *to, const char *from) {
  if (strlen(from) >= TEXT) {
    fprintf(stderr, "a field is too long: %s\n", from);
    exit(2);
  }
  strcpy(to, from);
}

static void read_statistics(void) {
  static Row row;
  expect_header(&row, STATISTICS, 8);
  while (read_row(&row)) {
    Line *line = &lines[line_count];
    char **f = row.fields;
    if (row.broken || row.count != 8 || line_count == LINES || !read_int(f[2], 0, 100000000, &line->flights) ||
        !read_int(f[3], 0, 100000000, &line->cancelled)) {
      fprintf(stderr, "line %d is no statistic, or one too many\n", line_count + 2);
      exit(2);
    }
    copy(line->group, f[0]);
    copy(line->key, f[1]);
    copy(line->mean, f[4]);
    copy(line->median, f[5]);
    copy(line->p90, f[6]);
    copy(line->late, f[7]);
    line->late_tenths = tenths_of(f[7]);
    line_count++;
  }
}

static const Line *total(void) {
  for (int i = 0; i < line_count; i++)
    if (same(lines[i].group, "total")) return &lines[i];
  fprintf(stderr, "the statistics have no total: there were no flights\n");
  exit(2);
}

static int by_late(const void *a, const void *b) {
  const Line *left = *(const Line *const *)a, *right = *(const Line *const *)b;
  return left->late_tenths != right->late_tenths ? right->late_tenths - left->late_tenths : strcmp(left->key, right->key);
}

// The lines of a group, the latest first when `sorted`; returns how many.
static int select_lines(const char *group, const Line **chosen, int sorted) {
  int count = 0;
  for (int i = 0; i < line_count; i++)
    if (same(lines[i].group, group)) chosen[count++] = &lines[i];
  if (sorted) qsort(chosen, count, sizeof *chosen, by_late);
  return count;
}

// Leaves out the lines with few flights, unless all have few; returns how many are left.
static int drop_few(const Line **chosen, int count) {
  int kept = 0;
  const Line *many[LINES];
  for (int i = 0; i < count; i++)
    if (chosen[i]->flights >= FEW) many[kept++] = chosen[i];
  if (kept == 0) return count;
  memcpy(chosen, many, kept * sizeof *many);
  return kept;
}

// 27004 as 27,004; `text` has room for 16.
static const char *grouped(int value, char *text) {
  if (value >= 1000000)
    snprintf(text, 16, "%d,%03d,%03d", value / 1000000, value / 1000 % 1000, value % 1000);
  else if (value >= 1000)
    snprintf(text, 16, "%d,%03d", value / 1000, value % 1000);
  else
    snprintf(text, 16, "%d", value);
  return text;
}
