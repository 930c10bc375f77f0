// A row that clean.c writes.
#pragma once
#include "csv.h"

static const char *const CLEAN[] = {"date", "hour", "carrier", "flight", "origin", "dest", "distance", "dep_delay", "status"};
