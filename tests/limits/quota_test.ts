import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { parseQuotaHeader, type Quota, Quotas, retryAfterMs } from "../../lib/limits/quota.ts";
import { formatThreshold, parseThreshold } from "../../lib/config/values.ts";
import { registryOf } from "../../lib/oci/registry.ts";
import type { Credential } from "../../lib/transforms/auth.ts";

const ACCOUNTS = ["a", "b", "c"].map((username) => ({ username, password: `of-${username}` }));
const hub = registryOf("docker", new URL("https://hub.example"), { credentials: ACCOUNTS });
const open = registryOf("open", new URL("https://open.example"));
const ANONYMOUS: Credential = { kind: "anonymous" };
const as = (i: number): Credential => ({ kind: "basic", ...ACCOUNTS[i]! });

function makeQuotas(threshold = "20%") {
  const clock = { now: 1_000_000 };
  const seen: Quota[] = [];
  const quotas = new Quotas({
    threshold: parseThreshold(threshold),
    now: () => clock.now,
    onSeen: (quota) => seen.push(quota),
  });
  return { clock, quotas, seen };
}

/** An answer with these pulls left of 100. */
function answer(remaining: number | undefined, status = 200, retryAfter?: string) {
  const headers = new Headers();
  if (remaining !== undefined) {
    headers.set("ratelimit-limit", "100;w=21600");
    headers.set("ratelimit-remaining", `${remaining};w=21600`);
  }
  if (retryAfter !== undefined) headers.set("retry-after", retryAfter);
  return { status, headers };
}

const HEADERS: readonly [string | null, ReturnType<typeof parseQuotaHeader>][] = [
  ["76;w=21600", { count: 76, window: 21_600_000 }],
  [" 76 ; w=60", { count: 76, window: 60_000 }],
  ["76", { count: 76 }],
  ["76, 100;w=60", { count: 76 }],
  ["", undefined],
  ["-1", undefined],
  ["many", undefined],
  [null, undefined],
];

for (const [text, expected] of HEADERS) {
  Deno.test(`the header ${text} says ${JSON.stringify(expected)}`, () => {
    assertEquals(parseQuotaHeader(text), expected);
  });
}

for (const text of ["20%", "0", "30", "100%"]) {
  Deno.test(`the threshold ${text} is read and written`, () => {
    assertEquals(formatThreshold(parseThreshold(text)), text);
  });
}

for (const text of ["", "-1", "101%", "1.5", "%"]) {
  Deno.test(`"${text}" is no threshold`, () => {
    assertThrows(() => parseThreshold(text), RangeError, "Expected a number of pulls");
  });
}

const NOW = Date.parse("2026-01-01T00:00:00Z");
const RETRY: readonly [string | null, number][] = [
  ["120", 120_000],
  ["0", 1_000],
  ["Thu, 01 Jan 2026 00:02:00 GMT", 120_000],
  ["Wed, 31 Dec 2025 00:00:00 GMT", 1_000],
  ["999999999", 24 * 3600_000],
  ["soon", 60_000],
  [null, 60_000],
];

for (const [text, expected] of RETRY) {
  Deno.test(`Retry-After ${text} means ${expected} ms`, () => {
    assertEquals(retryAfterMs(text, { now: NOW, fallback: 60_000 }), expected);
  });
}

Deno.test("a quota is low when what is left falls under the share of the limit", () => {
  const { quotas } = makeQuotas("20%");
  assertEquals(quotas.isLow(open), false);
  quotas.observe(open, ANONYMOUS, answer(20));
  assertEquals(quotas.isLow(open), false);
  quotas.observe(open, ANONYMOUS, answer(19));
  assertEquals(quotas.isLow(open), true);
});

Deno.test("or under a number of pulls", () => {
  const { quotas } = makeQuotas("5");
  quotas.observe(open, ANONYMOUS, answer(5));
  assertEquals(quotas.isLow(open), false);
  quotas.observe(open, ANONYMOUS, answer(4));
  assertEquals(quotas.isLow(open), true);
});

Deno.test("what was heard says nothing any more when its window is over", () => {
  const { clock, quotas } = makeQuotas();
  quotas.observe(open, ANONYMOUS, answer(0));
  clock.now += 21_600_000;
  assertEquals([quotas.isLow(open), quotas.entries()], [false, []]);
});

Deno.test("a refusal means that nothing is left, until its Retry-After", () => {
  const { clock, quotas } = makeQuotas();
  quotas.observe(open, ANONYMOUS, answer(undefined, 429, "30"));
  assertEquals(quotas.isLow(open), true);
  clock.now += 30_000;
  assertEquals(quotas.isLow(open), false);
});

Deno.test("a registry with several accounts is low when all of them are", () => {
  const { quotas } = makeQuotas();
  quotas.observe(hub, as(0), answer(1));
  quotas.observe(hub, as(1), answer(1));
  assertEquals(quotas.isLow(hub), false);
  quotas.observe(hub, as(2), answer(1));
  assertEquals(quotas.isLow(hub), true);
});

Deno.test("what a client's own account has left is nothing to go by", () => {
  const { quotas, seen } = makeQuotas();
  quotas.observe(hub, { kind: "basic", username: "a", password: "another" }, answer(0));
  quotas.observe(hub, { kind: "bearer", token: "x" }, answer(0));
  assertEquals([quotas.entries(), seen], [[], []]);
});

Deno.test("accounts of which nothing is known take turns", () => {
  const { quotas } = makeQuotas();
  const order = [1, 2, 3, 4].map(() => quotas.choose(hub)?.username);
  assertEquals(order, ["a", "b", "c", "a"]);
});

Deno.test("the account with most of its quota left comes first, one that was refused last", () => {
  const { clock, quotas } = makeQuotas();
  quotas.observe(hub, as(0), answer(40));
  quotas.observe(hub, as(1), answer(60));
  quotas.observe(hub, as(2), answer(undefined, 429, "60"));
  assertEquals(quotas.choose(hub)?.username, "b");
  quotas.observe(hub, as(1), answer(39));
  assertEquals(quotas.choose(hub)?.username, "a");
  clock.now += 60_000;
  assertEquals(quotas.choose(hub)?.username, "c");
});

Deno.test("without accounts there is none to choose, and one needs no choice", () => {
  const { quotas } = makeQuotas();
  const [account] = ACCOUNTS;
  const one = registryOf("one", new URL("https://one.example"), { credentials: [account!] });
  assertEquals([quotas.choose(open), quotas.choose(one)], [undefined, account]);
});

Deno.test("what another instance heard counts here, unless something newer is known", () => {
  const [mine, other] = [makeQuotas(), makeQuotas()];
  mine.quotas.observe(open, ANONYMOUS, answer(50));
  other.clock.now += 1;
  other.quotas.observe(open, ANONYMOUS, answer(3));
  mine.quotas.accept(other.seen[0]!);
  assertEquals(mine.quotas.entries().map(({ remaining }) => remaining), [3]);
  mine.quotas.accept(mine.seen[0]!);
  assertEquals(mine.quotas.entries().map(({ remaining }) => remaining), [3]);
});

/** What such headers are made of. */
const HEADER_TEXT = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: fc.constantFrom(..."0123456789;w=,- ") }),
  fc.date().map((date) => date.toString()),
);

Deno.test("a quota header is read back the same, and nothing makes reading one throw", () => {
  fc.assert(fc.property(fc.nat(999_999_999), fc.nat(999_999_999), (count, seconds) => {
    assertEquals(parseQuotaHeader(`${count};w=${seconds}`), { count, window: seconds * 1000 });
    assertEquals(parseQuotaHeader(String(count)), { count });
  }));
  fc.assert(fc.property(HEADER_TEXT, (text) => {
    const { count, window = 0 } = parseQuotaHeader(text) ?? { count: 0 };
    assert(Number.isSafeInteger(count) && count >= 0 && Number.isSafeInteger(window));
  }));
});

Deno.test("a threshold is read back the same, and nothing makes reading one throw anything but a RangeError", () => {
  const threshold = fc.oneof(
    fc.record({ count: fc.nat(999_999_999) }),
    fc.record({ share: fc.nat(100).map((percent) => percent / 100) }),
  );
  fc.assert(fc.property(threshold, (threshold) => {
    assertEquals(parseThreshold(formatThreshold(threshold)), threshold);
  }));
  fc.assert(fc.property(HEADER_TEXT, (text) => {
    try {
      parseThreshold(text);
    } catch (error) {
      assert(error instanceof RangeError);
    }
  }));
});

Deno.test("whatever Retry-After says, the wait is from a second to a day, or what it was to be without", () => {
  const fallback = 4711;
  const now = Date.UTC(2026, 0, 1);
  fc.assert(fc.property(HEADER_TEXT, (text) => {
    const ms = retryAfterMs(text, { now, fallback });
    assert(ms === fallback || ms >= 1_000 && ms <= 24 * 60 * 60_000, `${ms}`);
  }));
  fc.assert(fc.property(fc.integer({ min: 1, max: 86_400 }), (seconds) => {
    const date = new Date(now + seconds * 1000).toUTCString();
    for (const text of [String(seconds), date]) {
      assertEquals(retryAfterMs(text, { now, fallback }), seconds * 1000);
    }
  }));
});
