// How many flights of each group had each delay: what count.c counts and merge.c adds up.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST = -1440, MOST = 2880, DELAYS = MOST - LEAST + 1, GROUPS = 256, KEY = 8, KIND = 8 };

typedef struct {
  char kind[KIND], key[KEY];
  long cancelled;
  unsigned *delays;  // how many flights had each delay
} Group;

static Group groups[GROUPS];
static int group_count;

static Group *find(const char *kind, const char *key) {
  for (int i = 0; i < group_count; i++)
    if (!strcmp(groups[i].kind, kind) && !strcmp(groups[i].key, key)) return &groups[i];
  if (group_count == GROUPS || strlen(key) >= KEY || strlen(kind) >= KIND) {
    fprintf(stderr, "too many groups, or a name too long: %s %s\n", kind, key);
    exit(3);
  }
  Group *group = &groups[group_count++];
  strcpy(group->kind, kind);
  strcpy(group->key, key);
  group->delays = calloc(DELAYS, sizeof *group->delays);
  if (!group->delays) {
    fprintf(stderr, "out of memory at group %d\n", group_count);
    exit(4);
  }
  return group;
}

static int by_kind_and_key(const void *a, const void *b) {
  const Group *left = a, *right = b;
  int kind = strcmp(left->kind, right->kind);
  return kind ? kind : strcmp(left->key, right->key);
}
