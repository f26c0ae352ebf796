/**
 * The last hour: how much the cache answered, and how many bytes it spared.
 *
 * @module
 */
import { byMinute, chart, roundUp } from "../chart.js";
import { h } from "../dom.js";
import { clock, count, percent, size } from "../format.js";
import { t } from "../i18n.js";

/** `{ element, set(history, now) }` */
export function hourCharts() {
  const ratio = chart({
    title: t("hour.ratio"),
    legend: [
      { name: "cache", text: t("hour.hits") },
      { name: "rest", text: t("hour.misses") },
    ],
    top: () => 1,
    label: (value) => percent(value, 0),
    bars: (minute) => {
      const part = ratioOf(minute);
      return part === undefined ? undefined : [
        { name: "cache", value: part },
        { name: "rest", value: 1 - part },
      ];
    },
    describe: (minute) => t("hour.minuteRatio", { time: clock(minute.at), ...ratioText(minute) }),
    summarize: (minutes) => t("hour.sumRatio", ratioText(sum(minutes))),
  });
  const bytes = chart({
    title: t("hour.bytes"),
    legend: [
      { name: "cache", text: t("hour.fromCache") },
      { name: "upstream", text: t("hour.fromUpstream") },
    ],
    top: (minutes) =>
      roundUp(Math.max(...minutes.map((one) => one.bytesFromCache + one.bytesFromUpstream)), 1024),
    label: size,
    bars: (minute) => [
      { name: "cache", value: minute.bytesFromCache },
      { name: "upstream", value: minute.bytesFromUpstream },
    ],
    describe: (minute) => t("hour.minuteBytes", { time: clock(minute.at), ...bytesText(minute) }),
    summarize: (minutes) => t("hour.sumBytes", bytesText(sum(minutes))),
  });
  return {
    element: h("div", { class: "charts" }, ratio.element, bytes.element),
    set({ samples }, now) {
      const minutes = byMinute(samples, now);
      ratio.set(minutes);
      bytes.set(minutes);
    },
  };
}

function ratioOf({ hit, stale, miss }) {
  const all = hit + stale + miss;
  return all > 0 ? (hit + stale) / all : undefined;
}

function ratioText(minute) {
  const part = ratioOf(minute);
  return {
    ratio: part === undefined ? t("hour.noRatio") : percent(part),
    requests: count(minute.requests),
  };
}

function bytesText({ bytesFromCache, bytesFromUpstream }) {
  return { cache: size(bytesFromCache), upstream: size(bytesFromUpstream) };
}

function sum(minutes) {
  const total = {
    requests: 0,
    hit: 0,
    miss: 0,
    stale: 0,
    bytesFromCache: 0,
    bytesFromUpstream: 0,
  };
  for (const minute of minutes) {
    for (const key of Object.keys(total)) total[key] += minute[key];
  }
  return total;
}
