import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  formatDuration,
  formatExactSize,
  formatSize,
  parseDuration,
  parseSize,
} from "../../lib/util/units.ts";

const DAY = 86_400_000;

const DURATIONS: readonly [text: string, ms: number][] = [
  ["0s", 0],
  ["30s", 30_000],
  ["5m", 300_000],
  ["1h", 3_600_000],
  ["1d", DAY],
  ["2w", 14 * DAY],
  ["1M", 30 * DAY],
  ["1y", 365 * DAY],
  ["0.5s", 500],
  ["1.5h", 5_400_000],
  [" 10s ", 10_000],
];

Deno.test("a duration is a number and one of s m h d w M y", () => {
  for (const [text, ms] of DURATIONS) assertEquals(parseDuration(text), ms, text);
});

Deno.test("what is no duration is refused with an example of one", () => {
  for (
    const text of ["", "5", "m", "-1s", "1 s", "1S", "1ms", "1h30m", "1e3s", "Infinitys", ".5s"]
  ) {
    assertThrows(() => parseDuration(text), RangeError, "such as 30s", text);
  }
});

const SIZES: readonly [text: string, bytes: number][] = [
  ["0", 0],
  ["1073741824", 2 ** 30],
  ["12B", 12],
  ["1kB", 1000],
  ["500MB", 500_000_000],
  ["1.5GB", 1_500_000_000],
  ["2TB", 2e12],
  ["10GiB", 10 * 2 ** 30],
  ["10gib", 10 * 2 ** 30],
  ["64K", 65_536],
  ["1 M", 2 ** 20],
  ["3G", 3 * 2 ** 30],
  ["1T", 2 ** 40],
];

Deno.test("a size is bytes, or a number with a decimal or binary unit", () => {
  for (const [text, bytes] of SIZES) assertEquals(parseSize(text), bytes, text);
});

Deno.test("what is no size is refused with an example of one", () => {
  for (const text of ["", "GiB", "-1", "1XB", "1 0", "1,5GB", "99999999999T", "NaN", "0x10"]) {
    assertThrows(() => parseSize(text), RangeError, "such as 500MB", text);
  }
});

Deno.test("a size for a person has one decimal at most", () => {
  const examples: [number, string][] = [
    [0, "0 B"],
    [12, "12 B"],
    [1024, "1 KiB"],
    [1536, "1.5 KiB"],
    [10 * 2 ** 30, "10 GiB"],
    [2 ** 40, "1 TiB"],
    [5000 * 2 ** 40, "5000 TiB"],
  ];
  for (const [bytes, text] of examples) assertEquals(formatSize(bytes), text);
});

Deno.test("a duration written is read back the same", () => {
  assertEquals(formatDuration(300_000), "5m");
  assertEquals(formatDuration(365 * DAY), "1y");
  assertEquals(formatDuration(1_500), "1.5s");
  fc.assert(fc.property(fc.nat({ max: 10 * 365 * DAY }), (ms) => {
    assertEquals(parseDuration(formatDuration(ms)), ms);
  }));
});

Deno.test("a size written for a file is read back the same", () => {
  assertEquals(formatExactSize(10 * 2 ** 30), "10GiB");
  assertEquals(formatExactSize(1_234_567_890), "1234567890");
  fc.assert(fc.property(fc.maxSafeNat(), (bytes) => {
    assertEquals(parseSize(formatExactSize(bytes)), bytes);
  }));
});

Deno.test("the parsers throw nothing but RangeError, whatever the text", () => {
  const near = fc.stringMatching(/^[\d.\s]{0,12}[a-zA-Z]{0,4}$/);
  fc.assert(fc.property(fc.oneof(fc.string(), near), (text) => {
    for (const parse of [parseDuration, parseSize]) {
      try {
        assertEquals(Number.isFinite(parse(text)), true, text);
      } catch (error) {
        assertEquals((error as Error).name, "RangeError");
      }
    }
  }));
});
