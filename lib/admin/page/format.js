/**
 * Numbers, sizes and times for people, in the language of the page.
 *
 * @module
 */
import { language, t } from "./i18n.js";

/** What is not known. */
export const NONE = "–";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const PERIODS = [
  ["year", 365 * 86_400],
  ["month", 30 * 86_400],
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
];

const formats = new Map();

function cached(key, make) {
  const full = `${language()} ${key}`;
  if (!formats.has(full)) formats.set(full, make());
  return formats.get(full);
}

/** `12,345`; beyond a million `1.2M`. */
export function count(n) {
  const compact = Math.abs(n) >= 1e6;
  const options = compact ? { notation: "compact", maximumFractionDigits: 1 } : {};
  return cached(`count ${compact}`, () => new Intl.NumberFormat(language(), options)).format(n);
}

/** Bytes with the units of the command line: `1.2 GiB`. */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return NONE;
  let value = bytes;
  let unit = 0;
  while (value >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  const format = cached(
    `size ${digits}`,
    () => new Intl.NumberFormat(language(), { maximumFractionDigits: digits }),
  );
  return `${format.format(value)}\u00a0${UNITS[unit]}`;
}

/** Bytes per second. */
export function speed(bytes) {
  return `${size(bytes)}/s`;
}

/** A part of one: `94.2%`; never 100 % before it is whole. */
export function percent(part, digits = 1) {
  const shown = part < 1 ? Math.min(part, 1 - 1 / 10 ** (digits + 2)) : part;
  return cached(`percent ${digits}`, () =>
    new Intl.NumberFormat(language(), {
      style: "percent",
      minimumFractionDigits: digits,
      maximumFractionDigits: digits,
      roundingMode: "floor",
    })).format(shown);
}

/** `3.4`, `14`: how many times. */
export function times(n) {
  const digits = n < 10 ? 1 : 0;
  return cached(
    `times ${digits}`,
    () => new Intl.NumberFormat(language(), { maximumFractionDigits: digits }),
  ).format(n);
}

/** `35 ms`, `1.2 s`. */
export function latency(ms) {
  if (ms === null || ms === undefined) return NONE;
  return ms < 1000
    ? `${
      cached(
        "ms",
        () => new Intl.NumberFormat(language(), { maximumFractionDigits: ms < 1 ? 1 : 0 }),
      ).format(ms)
    }\u00a0ms`
    : `${times(ms / 1000)}\u00a0s`;
}

/** How long: `3 days`, `12 minutes`, `40 seconds`. */
export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const [unit, length] = PERIODS.find(([, length]) => seconds >= length) ?? ["second", 1];
  return cached(
    `duration ${unit}`,
    () => new Intl.NumberFormat(language(), { style: "unit", unit, unitDisplay: "long" }),
  ).format(Math.floor(seconds / length));
}

/** `3 minutes ago`, by the clock of the server where that is known. */
export function ago(at, now = Date.now()) {
  if (!at) return t("time.never");
  const seconds = Math.round((at - now) / 1000);
  if (seconds > -10) return t("time.now");
  const [unit, length] = PERIODS.find(([, length]) => -seconds >= length) ?? ["second", 1];
  return cached(
    "ago",
    () => new Intl.RelativeTimeFormat(language(), { numeric: "always", style: "short" }),
  ).format(Math.ceil(seconds / length), unit);
}

/** Date and time in full. */
export function moment(at) {
  return cached(
    "moment",
    () => new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "medium" }),
  ).format(at);
}

/** `14:05` */
export function clock(at) {
  return cached(
    "clock",
    () =>
      new Intl.DateTimeFormat(language(), { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
  ).format(at);
}

/** `12 Nov` */
export function day(at) {
  return cached(
    "day",
    () => new Intl.DateTimeFormat(language(), { day: "numeric", month: "short" }),
  ).format(at);
}

/** `sha256:0123456789ab…`; of cosign's tags, which contain one, `sha256-0123456789ab….sig`. */
export function shortDigest(digest) {
  return digest.replace(/(?<=^\w+[:-]\w{12})\w+/, "…");
}
