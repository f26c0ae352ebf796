/**
 * Charts of what happened, a bar for each step. Plain SVG that stretches with the page; its labels are
 * HTML, so that they do not.
 *
 * @module
 */
import { h, s, setText } from "./dom.js";
import { t } from "./i18n.js";

const WIDTH = 600;
const HEIGHT = 100;

/** A column for each step until `now`, the oldest first, those in which nothing happened included. */
export function columnsOf({ stepMs, steps, samples }, now) {
  const last = Math.floor(now / stepMs) * stepMs;
  const known = new Map(samples.map((sample) => [sample.at, sample]));
  return Array.from({ length: steps }, (_, i) => {
    const at = last - (steps - 1 - i) * stepMs;
    return known.get(at) ?? {
      at,
      requests: 0,
      hit: 0,
      miss: 0,
      stale: 0,
      bytesFromCache: 0,
      bytesFromUpstream: 0,
    };
  });
}

/**
 * A chart: `{ element, set(columns) }`. `bars(column)` returns the parts of a bar from the bottom up,
 * `[{ name, value }]`, or undefined where there is nothing to tell; `top(columns)` the value of the full height;
 * `describe(column)` what a column is in words, `summarize(columns)` all of them; `label(value)` a
 * grid line, `time(at)` the ends of the axis.
 */
export function chart({ title, legend = [], bars, top, describe, summarize, label, time }) {
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
  let columns = [];
  let pointed;

  const tell = () => {
    setText(readout, pointed === undefined ? summarize(columns) : describe(columns[pointed]));
    for (const [i, column] of [...plot.querySelectorAll(".column")].entries()) {
      column.classList.toggle("pointed", i === pointed);
    }
  };
  const point = (index) => {
    pointed = index === undefined ? undefined : Math.min(columns.length - 1, Math.max(0, index));
    tell();
  };
  area.addEventListener("pointermove", (event) => {
    const { left, width } = area.getBoundingClientRect();
    point(Math.floor((event.clientX - left) / width * columns.length));
  });
  area.addEventListener("pointerleave", () => point(undefined));
  area.addEventListener("blur", () => point(undefined));
  area.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key in moves) point((pointed ?? columns.length) + moves[event.key]);
    else if (event.key === "Home") point(0);
    else if (event.key === "End") point(columns.length - 1);
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
      ...columns.filter(isSomething).reverse()
        .map((column) => h("tr", {}, h("td", {}, describe(column)))),
    );
    if (!body.hasChildNodes()) body.append(h("tr", {}, h("td", {}, summarize(columns))));
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
      columns = next;
      if (pointed >= columns.length) pointed = undefined;
      const full = top(columns);
      const width = WIDTH / columns.length;
      plot.replaceChildren(
        ...[0, 0.5, 1].map((part) =>
          s("line", { x1: 0, x2: WIDTH, y1: part * HEIGHT, y2: part * HEIGHT, class: "grid" })
        ),
        ...columns.map((column, i) => barOf(bars(column), { i, full, width })),
      );
      // Where nothing happened there is no scale.
      setText(high, full > 0 ? label(full) : "");
      setText(middle, full > 0 ? label(full / 2) : "");
      setText(from, time(columns[0].at));
      setText(to, time(columns.at(-1).at));
      tell();
      if (pointed === undefined) {
        area.setAttribute("aria-label", `${title}: ${readout.textContent}`);
      }
      fillTable();
    },
  };
}

function isSomething({ hit, stale, miss, bytesFromUpstream }) {
  return hit + stale + miss + bytesFromUpstream > 0;
}

function barOf(parts, { i, full, width }) {
  const group = s("g", { class: "column" });
  group.append(s("rect", { class: "back", x: i * width, y: 0, width, height: HEIGHT }));
  const gap = Math.min(1, width / 8);
  let y = HEIGHT;
  for (const { name, value } of parts ?? []) {
    // What is not nothing is seen.
    const height = value > 0 ? Math.max(1, value / full * HEIGHT) : 0;
    y -= height;
    group.append(
      s("rect", { class: name, x: i * width + gap, y, width: width - 2 * gap, height }),
    );
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
