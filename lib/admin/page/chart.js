/**
 * Charts of the last hour, a bar for each minute. Plain SVG that stretches with the page; its labels are
 * HTML, so that they do not.
 *
 * @module
 */
import { h, s, setText } from "./dom.js";
import { clock } from "./format.js";
import { t } from "./i18n.js";

const MINUTE = 60_000;
const MINUTES = 60;
const WIDTH = 600;
const HEIGHT = 100;
const STEP = WIDTH / MINUTES;

/** Samples by minute, the oldest first, empty minutes included; each has the sums and `at`, its start. */
export function byMinute(samples, now) {
  const last = Math.floor(now / MINUTE);
  const minutes = Array.from({ length: MINUTES }, (_, i) => ({
    at: (last - MINUTES + 1 + i) * MINUTE,
    requests: 0,
    hit: 0,
    miss: 0,
    stale: 0,
    bytesFromCache: 0,
    bytesFromUpstream: 0,
  }));
  for (const sample of samples) {
    // A sample tells of the time before it.
    const minute = minutes[Math.floor((sample.at - 1) / MINUTE) - (last - MINUTES + 1)];
    if (!minute) continue;
    for (const key of Object.keys(minute)) {
      if (key !== "at") minute[key] += sample[key] ?? 0;
    }
  }
  return minutes;
}

/**
 * A chart: `{ element, set(minutes) }`. `bars(minute)` returns the parts of a bar from the bottom up,
 * `[{ name, value }]`, or undefined where there is nothing to tell; `top(minutes)` the value of the full height;
 * `describe(minute)` what a minute is in words, `summarize(minutes)` the hour; `label(value)` a grid line.
 */
export function chart({ title, legend = [], bars, top, describe, summarize, label }) {
  const plot = s("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    focusable: "false",
    "aria-hidden": "true",
  });
  const area = h("div", { class: "plot", tabindex: "0", role: "img" }, plot);
  const readout = h("p", { class: "readout" });
  const [high, middle] = [h("span", {}), h("span", {})];
  const [from, to] = [h("span", {}), h("span", {})];
  const body = h("tbody", {});
  let minutes = [];
  let pointed;

  const tell = () => {
    setText(readout, pointed === undefined ? summarize(minutes) : describe(minutes[pointed]));
    for (const [i, column] of [...plot.querySelectorAll(".column")].entries()) {
      column.classList.toggle("pointed", i === pointed);
    }
  };
  const point = (index) => {
    pointed = index === undefined ? undefined : Math.min(MINUTES - 1, Math.max(0, index));
    tell();
  };
  area.addEventListener("pointermove", (event) => {
    const { left, width } = area.getBoundingClientRect();
    point(Math.floor((event.clientX - left) / width * MINUTES));
  });
  area.addEventListener("pointerleave", () => point(undefined));
  area.addEventListener("blur", () => point(undefined));
  area.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key in moves) point((pointed ?? MINUTES) + moves[event.key]);
    else if (event.key === "Home") point(0);
    else if (event.key === "End") point(MINUTES - 1);
    else if (event.key === "Escape") point(undefined);
    else return;
    event.preventDefault();
    // Only what a key asked for is read out: the pointer would never be quiet.
    area.setAttribute("aria-label", `${title}: ${readout.textContent}`);
  });

  const table = h(
    "details",
    { class: "as-table", ontoggle: () => fillTable() },
    h("summary", {}, t("chart.table")),
    h("div", { class: "scroll", tabindex: "0" }, h("table", { "aria-label": title }, body)),
  );
  const fillTable = () => {
    if (!table.open) return;
    body.replaceChildren(
      ...minutes.filter((minute) => minute.requests > 0).reverse().map((minute) =>
        h("tr", {}, h("td", {}, describe(minute)))
      ),
    );
    if (!body.hasChildNodes()) body.append(h("tr", {}, h("td", {}, summarize(minutes))));
  };

  return {
    element: h(
      "figure",
      { class: "chart" },
      h(
        "figcaption",
        {},
        h("h3", {}, title),
        h(
          "ul",
          { class: "legend" },
          legend.map(({ name, text }) => h("li", { class: name }, text)),
        ),
      ),
      h(
        "div",
        { class: "frame" },
        h("div", { class: "scale", "aria-hidden": "true" }, high, middle),
        area,
      ),
      h("div", { class: "axis", "aria-hidden": "true" }, from, to),
      readout,
      table,
    ),
    set(next) {
      minutes = next;
      const full = top(minutes);
      plot.replaceChildren(
        ...[0, 0.5, 1].map((part) =>
          s("line", { x1: 0, x2: WIDTH, y1: part * HEIGHT, y2: part * HEIGHT, class: "grid" })
        ),
        ...minutes.map((minute, i) => column(bars(minute), i, full)),
      );
      // Where nothing happened there is no scale.
      setText(high, full > 0 ? label(full) : "");
      setText(middle, full > 0 ? label(full / 2) : "");
      setText(from, clock(minutes[0].at));
      setText(to, clock(minutes.at(-1).at));
      tell();
      if (pointed === undefined) {
        area.setAttribute("aria-label", `${title}: ${readout.textContent}`);
      }
      fillTable();
    },
  };
}

function column(parts, i, full) {
  const group = s("g", { class: "column" });
  group.append(s("rect", { class: "back", x: i * STEP, y: 0, width: STEP, height: HEIGHT }));
  let y = HEIGHT;
  for (const { name, value } of parts ?? []) {
    // What is not nothing is seen.
    const height = value > 0 ? Math.max(1, value / full * HEIGHT) : 0;
    y -= height;
    group.append(s("rect", { class: name, x: i * STEP + 1, y, width: STEP - 2, height }));
  }
  return group;
}

/** The next number above `value` that is good for a scale in `base` (1000, or 1024 for bytes). */
export function roundUp(value, base = 1000) {
  if (value <= 0) return 0;
  let unit = 1;
  while (unit * base <= value) unit *= base;
  const step = [1, 2, 3, 4, 6, 8, 10, 20, 30, 40, 60, 80, 100, 200, 300, 400, 600, 800, base].find((
    n,
  ) => n * unit >= value);
  return step * unit;
}
