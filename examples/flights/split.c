// Splits clean flights by day: a JSON list of {"day", "flights", "rows"}, where `rows` is CSV with its header.
#include "flight.h"

enum { DAYS = 366, DATE = 10 };

typedef struct {
  char date[DATE + 1];
  int flights;
  char *rows;
  size_t size, room;
} Day;

static Day days[DAYS];
static int day_count;

static Day *day_of(const char *date) {
  for (int i = day_count - 1; i >= 0; i--)
    if (same(days[i].date, date)) return &days[i];
  if (day_count == DAYS || strlen(date) != DATE) {
    fprintf(stderr, "too many days, or no date: %s\n", date);
    exit(2);
  }
  strcpy(days[day_count].date, date);
  return &days[day_count++];
}

static void append(Day *day, const char *text) {
  size_t length = strlen(text);
  if (day->size + length > day->room) {
    day->room = (day->size + length) * 2 + 4096;
    day->rows = realloc(day->rows, day->room);
    if (!day->rows) {
      fprintf(stderr, "out of memory at %s\n", day->date);
      exit(4);
    }
  }
  memcpy(day->rows + day->size, text, length);
  day->size += length;
}

int main(void) {
  static Row row;
  long line = 1;
  expect_header(&row, CLEAN, 9);
  while (read_row(&row)) {
    line++;
    if (row.broken || row.count != 9) {
      fprintf(stderr, "line %ld is no clean flight\n", line);
      return 2;
    }
    Day *day = day_of(row.fields[0]);
    day->flights++;
    for (int i = 0; i < row.count; i++) {
      if (strpbrk(row.fields[i], "\"\\\n\r,")) {
        fprintf(stderr, "line %ld has a field with a quote, a comma or a line break\n", line);
        return 2;
      }
      append(day, row.fields[i]);
      append(day, i == 8 ? "\\n" : ",");
    }
  }
  putchar('[');
  for (int i = 0; i < day_count; i++) {
    printf("%s\n{\"day\": \"%s\", \"flights\": %d, \"rows\": \"", i ? "," : "", days[i].date, days[i].flights);
    for (int j = 0; j < 9; j++) printf("%s%s", CLEAN[j], j == 8 ? "\\n" : ",");
    fwrite(days[i].rows, 1, days[i].size, stdout);
    fputs("\"}", stdout);
  }
  puts("\n]");
  fprintf(stderr, "%ld flights on %d days\n", line - 1, day_count);
  return 0;
}
