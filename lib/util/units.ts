/**
 * Parses and formats durations and sizes.
 *
 * @module
 */

const SECOND = 1000;
const DAY = 24 * 60 * 60 * SECOND;

const DURATIONS: Readonly<Record<string, number>> = {
  s: SECOND,
  m: 60 * SECOND,
  h: 60 * 60 * SECOND,
  d: DAY,
  w: 7 * DAY,
  M: 30 * DAY,
  y: 365 * DAY,
};

const SIZES: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/**
 * The milliseconds in `text`: a number and one of `s m h d w M y` (`M` is 30 days, `y` 365).
 * Throws a `RangeError` that says what is accepted.
 */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([smhdwMy])$/.exec(text.trim());
  if (!match) {
    throw new RangeError(`Expected a duration such as 30s, 5m, 12h, 1d, 2w, 1M or 1y: ${text}`);
  }
  return Math.round(Number(match[1]) * DURATIONS[match[2]!]!);
}

/**
 * The bytes in `text`: a number and `B`, `kB MB GB TB` (powers of 1000), `KiB MiB GiB TiB` or
 * `K M G T` (powers of 1024), in either case. Throws a `RangeError` that says what is accepted.
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const unit = match && SIZES[match[2]!.toLowerCase()];
  const bytes = unit ? Math.floor(Number(match[1]) * unit) : NaN;
  if (!Number.isSafeInteger(bytes)) {
    throw new RangeError(`Expected a size such as 500MB, 10GiB or 1073741824: ${text}`);
  }
  return bytes;
}

/** Formats `bytes` for people: `10 GiB`, `1.5 MiB`, `12 B`. */
export function formatSize(bytes: number): string {
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return `${Number(value.toFixed(1))} ${unit}`;
    value /= 1024;
  }
  return `${Number(value.toFixed(1))} TiB`;
}

/** Formats `bytes` for {@linkcode parseSize}, in the largest unit that divides it: `10GiB`, `1500`. */
export function formatExactSize(bytes: number): string {
  if (bytes === 0) return "0";
  for (const unit of ["TiB", "GiB", "MiB", "KiB"]) {
    const size = SIZES[unit.toLowerCase()]!;
    if (bytes % size === 0) return `${bytes / size}${unit}`;
  }
  return String(bytes);
}

/** Formats `ms` for {@linkcode parseDuration}, in the largest unit that divides it: `5m`, `1y`. */
export function formatDuration(ms: number): string {
  for (const unit of ["y", "M", "w", "d", "h", "m", "s"]) {
    if (ms >= DURATIONS[unit]! && ms % DURATIONS[unit]! === 0) {
      return `${ms / DURATIONS[unit]!}${unit}`;
    }
  }
  return `${ms / SECOND}s`;
}
