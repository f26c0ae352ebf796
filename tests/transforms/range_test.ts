import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  contentRange,
  ifNoneMatch,
  ifRangeAllows,
  parseRange,
  type RangeRequest,
} from "../../lib/transforms/range.ts";

const DIGEST = `sha256:${"0a".repeat(32)}`;
const OTHER = `sha256:${"0b".repeat(32)}`;
const HUGE = "9".repeat(400);

const RANGES: [header: string | null, expected: [number, number] | "whole" | "unsatisfiable"][] = [
  [null, "whole"],
  ["", "whole"],
  ["bytes=500-1499", [500, 1499]],
  ["bytes=500-", [500, 2047]],
  ["bytes=-500", [1548, 2047]],
  ["bytes=2000-5000", [2000, 2047]],
  ["bytes=500-0", "unsatisfiable"],
  ["bytes=5000-10000", "unsatisfiable"],
  ["bytes=0-0", [0, 0]],
  ["bytes=0-", [0, 2047]],
  ["bytes=2047-", [2047, 2047]],
  ["bytes=2048-", "unsatisfiable"],
  ["bytes=-0", "unsatisfiable"],
  ["bytes=-9999", [0, 2047]],
  [" Bytes = 0-1 ", [0, 1]],
  [`bytes=0-${HUGE}`, [0, 2047]],
  [`bytes=${HUGE}-`, "unsatisfiable"],
  [`bytes=${HUGE}-${HUGE}`, "unsatisfiable"],
  [`bytes=-${HUGE}`, [0, 2047]],
  ["bytes=0-1,3-4", "whole"],
  ["items=0-1", "whole"],
  ["xbytes=0-1", "whole"],
  ["bytes=-", "whole"],
  ["bytes=", "whole"],
  ["bytes", "whole"],
  ["bytes=a-b", "whole"],
  ["bytes=1", "whole"],
  ["bytes=--1", "whole"],
  ["bytes=1.5-2", "whole"],
  ["0-1", "whole"],
];

for (const [header, expected] of RANGES) {
  Deno.test(`Range ${header?.slice(0, 24)} of 2048 bytes is ${expected}`, () => {
    assertEquals(flat(parseRange(header, 2048)), expected);
  });
}

Deno.test("nothing has no first byte, and its last bytes are all of it", () => {
  assertEquals(flat(parseRange("bytes=0-", 0)), "unsatisfiable");
  assertEquals(flat(parseRange("bytes=-1", 0)), "whole");
});

Deno.test("a part written as a range is read back the same", () => {
  const sizes = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
  fc.assert(fc.property(sizes, fc.nat(), fc.nat(), (size, a, b) => {
    const [start, end] = [a % size, b % size].toSorted((x, y) => x - y) as [number, number];
    assertEquals(flat(parseRange(`bytes=${start}-${end}`, size)), [start, end]);
    assertEquals(contentRange({ start, end }, size), `bytes ${start}-${end}/${size}`);
  }));
});

Deno.test("no header makes the parser throw or leave the content", () => {
  const headers = fc.oneof(fc.string(), fc.stringMatching(/^bytes=[0-9,-]{0,30}$/));
  fc.assert(fc.property(headers, fc.nat({ max: 100 }), (header, size) => {
    const range = parseRange(header, size);
    if (range.kind !== "part") return;
    assert(0 <= range.start && range.start <= range.end && range.end < size);
  }));
});

Deno.test("a 416 says how much there is", () => {
  assertEquals(contentRange(undefined, 2048), "bytes */2048");
});

const NONE_MATCH: [header: string | null, matches: boolean][] = [
  [null, false],
  ["", false],
  [`"${DIGEST}"`, true],
  [`W/"${DIGEST}"`, true],
  [DIGEST, true],
  ["*", true],
  [`"${OTHER}", W/"${DIGEST}"`, true],
  [`"${OTHER}","x"`, false],
  [`"${DIGEST}`, false],
  [`"x${DIGEST}"`, false],
  [`xW/"${DIGEST}"`, false],
];

for (const [header, matches] of NONE_MATCH) {
  Deno.test(`If-None-Match ${header} ${matches ? "names" : "does not name"} the content`, () => {
    assertEquals(ifNoneMatch(header, DIGEST), matches);
  });
}

const IF_RANGE: [header: string | null, allows: boolean][] = [
  [null, true],
  [`"${DIGEST}"`, true],
  [` "${DIGEST}" `, true],
  [`W/"${DIGEST}"`, false],
  [`"${OTHER}"`, false],
  [DIGEST, false],
  ["*", false],
  ["", false],
  ["Mon, 01 Jan 2024 00:00:00 GMT", false],
];

for (const [header, allows] of IF_RANGE) {
  Deno.test(`If-Range ${header} ${allows ? "lets the Range count" : "means the whole"}`, () => {
    assertEquals(ifRangeAllows(header, DIGEST), allows);
  });
}

Deno.test("an ETag matches itself in any list, and no header makes a condition throw", () => {
  fc.assert(fc.property(fc.array(fc.stringMatching(/^[a-z ]*$/)), fc.string(), (others, text) => {
    const list = [...others.map((other) => `"${other}"`), `"${DIGEST}"`].join(", ");
    assert(ifNoneMatch(list, DIGEST));
    assert(!ifNoneMatch(list, OTHER));
    ifNoneMatch(text, DIGEST);
    assert(!ifRangeAllows(text, DIGEST));
  }));
});

function flat(range: RangeRequest): [number, number] | string {
  return range.kind === "part" ? [range.start, range.end] : range.kind;
}
