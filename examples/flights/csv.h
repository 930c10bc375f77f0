// Reads RFC 4180 CSV from standard input, a record at a time. A record longer than ROW_BYTES, or
// with more than ROW_FIELDS fields, is read to its end and told as broken.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_BYTES = 4096, ROW_FIELDS = 32 };

typedef struct {
  char bytes[ROW_BYTES];
  char *fields[ROW_FIELDS];
  int count;
  int broken;
} Row;

// 1 when a record was read, 0 at the end of the input.
static inline int read_row(Row *row) {
  int c = getchar(), quoted = 0, length = 0;
  if (c == EOF) return 0;
  row->count = 1;
  row->broken = 0;
  row->fields[0] = row->bytes;
  for (;; c = getchar()) {
    if (c == EOF || (!quoted && c == '\n')) break;
    if (c == '"') {
      if (!quoted) {
        quoted = 1;
        continue;
      }
      int next = getchar();
      if (next != '"') {
        quoted = 0;
        if (next != EOF) ungetc(next, stdin);
        continue;
      }
    }
    if (length >= ROW_BYTES - 1 || c == '\0') {
      row->broken = 1;
      continue;
    }
    if (!quoted && c == ',') {
      row->bytes[length++] = '\0';
      if (row->count == ROW_FIELDS)
        row->broken = 1;
      else
        row->fields[row->count++] = row->bytes + length;
      continue;
    }
    row->bytes[length++] = (char)c;
  }
  if (quoted) row->broken = 1;
  if (length > 0 && !quoted && row->bytes[length - 1] == '\r') length--;
  row->bytes[length] = '\0';
  return 1;
}

// 1 and the value when the whole text is an integer between least and most.
static inline int read_int(const char *text, int least, int most, int *value) {
  char *end;
  if (*text == '\0' || *text == ' ') return 0;
  long number = strtol(text, &end, 10);
  if (*end != '\0' || number < least || number > most) return 0;
  *value = (int)number;
  return 1;
}

static inline int same(const char *a, const char *b) { return strcmp(a, b) == 0; }

// Ends with code 2 and one sentence when the header is not the one wanted.
static inline void expect_header(Row *row, const char *const *names, int count) {
  int have = read_row(row);
  int good = have && !row->broken && row->count == count;
  for (int i = 0; good && i < count; i++) good = same(row->fields[i], names[i]);
  if (good) return;
  fprintf(stderr, "the input's header must be");
  for (int i = 0; i < count; i++) fprintf(stderr, "%c%s", i ? ',' : ' ', names[i]);
  fprintf(stderr, "%s\n", have ? "" : "; the input is empty");
  exit(2);
}
