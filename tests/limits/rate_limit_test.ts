import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { MemoryRateCounter } from "../../lib/limits/rate_limit.ts";
import { formatRateLimits, parseRate, parseRateLimits } from "../../lib/config/values.ts";

const SECOND = 1000;

function makeCounter() {
  const clock = { now: 1_000_000 };
  return { clock, counter: new MemoryRateCounter({ now: () => clock.now }) };
}

Deno.test("500/3h is 500 in three hours, 100/h a hundred in one", () => {
  assertEquals(parseRate("500/3h"), { count: 500, period: 3 * 3600 * SECOND });
  assertEquals(parseRate(" 100 / h "), { count: 100, period: 3600 * SECOND });
});

for (const text of ["", "500", "0/1h", "-1/1h", "5/0s", "5/1x", "5/", "1.5/1h"]) {
  Deno.test(`"${text}" is no rate`, () => {
    assertThrows(() => parseRate(text), RangeError, "Expected a");
  });
}

Deno.test("the whole budget may be used at once, and then there is a wait until one is back", () => {
  const { clock, counter } = makeCounter();
  const rate = { count: 10, period: 100 * SECOND };
  for (let i = 0; i < 10; i++) assertEquals(counter.take("a", rate), 0);
  assertEquals(counter.take("a", rate), 10 * SECOND);
  clock.now += 10 * SECOND;
  assertEquals(counter.take("a", rate), 0);
  assertEquals(counter.take("a", rate), 10 * SECOND);
});

Deno.test("what is turned away costs nothing, and what is given back can be taken again", () => {
  const { clock, counter } = makeCounter();
  const rate = { count: 1, period: SECOND };
  assertEquals(counter.take("a", rate), 0);
  counter.giveBack("a", rate);
  counter.giveBack("a", rate); // never more than the whole budget
  assertEquals(counter.take("a", rate), 0);
  for (let i = 0; i < 5; i++) assert(counter.take("a", rate) > 0);
  assertEquals(counter.take("a", rate), SECOND);
  clock.now += SECOND;
  assertEquals(counter.take("a", rate), 0);
});

Deno.test("keys have budgets of their own", () => {
  const { counter } = makeCounter();
  const rate = { count: 1, period: SECOND };
  assertEquals([counter.take("a", rate), counter.take("b", rate)], [0, 0]);
  assert(counter.take("a", rate) > 0);
});

Deno.test("never more than twice the budget in a period, and who waits as told gets one", () => {
  const step = fc.integer({ min: 0, max: 3 * SECOND });
  const rates = fc.record({
    count: fc.integer({ min: 1, max: 20 }),
    period: fc.integer({ min: 1, max: 10 }).map((n) => n * SECOND),
  });
  fc.assert(fc.property(rates, fc.array(step, { maxLength: 100 }), (rate, steps) => {
    const { clock, counter } = makeCounter();
    const granted: number[] = [];
    for (const ms of steps) {
      clock.now += ms;
      const wait = counter.take("a", rate);
      if (wait === 0) granted.push(clock.now);
      // Who waits as long as he is told gets one.
      else {
        clock.now += wait;
        assertEquals(counter.take("a", rate), 0);
        granted.push(clock.now);
      }
    }
    for (const from of granted) {
      const within = granted.filter((at) => at >= from && at < from + rate.period).length;
      assert(within <= 2 * rate.count);
    }
  }));
});

Deno.test("limits are read back the same, and no text makes it throw anything but a RangeError", () => {
  const rate = fc.record({
    count: fc.integer({ min: 1, max: 999_999_999 }),
    period: fc.integer({ min: 1, max: 10 ** 9 }).map((seconds) => seconds * SECOND),
  });
  const limits = fc.record({ hits: fc.option(rate, { nil: undefined }), misses: rate });
  fc.assert(fc.property(limits, (limits) => {
    assertEquals(parseRateLimits(formatRateLimits(limits)), limits);
  }));
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.string({ unit: fc.constantFrom(..."0123456789/smhd=,. ") }),
  );
  fc.assert(fc.property(text, (text) => {
    try {
      const { hits = { count: 1, period: 1 } } = parseRateLimits(text);
      assert(hits.count > 0 && hits.period > 0 && Number.isFinite(hits.period), text);
    } catch (error) {
      assert(error instanceof RangeError);
    }
  }));
});
