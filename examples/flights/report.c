// A report in Markdown on the statistics of merge.c.
#include "statistics.h"

static void table(const char *title, const char *group, int sorted) {
  const Line *chosen[LINES];
  int count = select_lines(group, chosen, sorted);
  char flights[16];
  printf("\n## By %s\n\n", title);
  printf("| %s | flights | cancelled | mean delay | median | 90%% under | late |\n|---|---:|---:|---:|---:|---:|---:|\n", title);
  for (int i = 0; i < count; i++) {
    const Line *line = chosen[i];
    printf("| ");
    if (same(group, "carrier"))
      printf("%s", AIRLINE(line->key));
    else if (same(group, "origin"))
      printf("%s (%s)", AIRPORT(line->key), line->key);
    else
      printf("%s:00", line->key);
    printf(" | %s | %d | ", grouped(line->flights, flights), line->cancelled);
    if (*line->mean)
      printf("%s min | %s min | %s min | %s %% |\n", line->mean, line->median, line->p90, line->late);
    else
      puts("| | | |");
  }
}

int main(void) {
  const Line *chosen[LINES], *all;
  char flights[16], cancelled[16];
  read_statistics();
  all = total();
  int count = drop_few(chosen, select_lines("carrier", chosen, 1));
  printf("# Departures from New York\n\n");
  printf("%s flights were scheduled and %s of them cancelled. ", grouped(all->flights, flights), grouped(all->cancelled, cancelled));
  if (*all->mean) {
    printf("Those that left did so %s minutes late on average; the typical one was at %s minutes, and one in ten at more than %s. ",
           all->mean, all->median, all->p90);
    printf("%s %% were more than a quarter of an hour late.\n", all->late);
    printf("\nOf the airlines with at least %d flights, most often late was **%s** (%s %%), least often **%s** (%s %%).\n", FEW, AIRLINE(chosen[0]->key), chosen[0]->late,
           AIRLINE(chosen[count - 1]->key), chosen[count - 1]->late);
  } else {
    puts("None left.");
  }
  table("airline", "carrier", 1);
  table("airport", "origin", 1);
  table("hour", "hour", 0);
  printf("\n*Delay is that of the departure; late is more than 15 minutes. Source: US Bureau of Transportation Statistics.*\n");
  return 0;
}
