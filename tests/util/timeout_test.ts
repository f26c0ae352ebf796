import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { startTimeout, withTimeout } from "../../lib/util/timeout.ts";

/** Lets nothing else happen for `ms`. */
function standStill(ms: number): void {
  for (const until = performance.now() + ms; performance.now() < until;);
}

Deno.test("a limit ends what takes longer, and not what is in time", async () => {
  const error = () => new Error("late");
  await assertRejects(() => withTimeout(new Promise(() => {}), { ms: 20, error }), Error, "late");
  assertEquals(await withTimeout(Promise.resolve(1), { ms: 20, error }), 1);
  await assertRejects(
    () => withTimeout(Promise.reject(new Error("other")), { ms: 20, error }),
    Error,
    "other",
  );
});

Deno.test("a limit that was called off does not come", async () => {
  let calls = 0;
  startTimeout(10, () => calls++)();
  const later = Promise.withResolvers<void>();
  startTimeout(30, later.resolve);
  await later.promise;
  assertEquals(calls, 0);
});

Deno.test("a standstill is not counted, whenever it comes", async () => {
  // Before the last part of the limit, and in it.
  for (const before of [0, 150]) {
    const order: string[] = [];
    const done = Promise.withResolvers<void>();
    const start = () => {
      startTimeout(200, () => {
        order.push("limit");
        done.resolve();
      });
      // What was waited for takes some turns of the loop after the standstill.
      setTimeout(() => {
        standStill(400);
        setTimeout(() => setTimeout(() => order.push("work"), 20), 20);
      }, before);
    };
    start();
    await done.promise;
    assertEquals(order, ["work", "limit"]);
  }
});

Deno.test("a loop that always stands still has limits all the same", async () => {
  const done = Promise.withResolvers<void>();
  let turns = 0;
  startTimeout(20, done.resolve);
  const timer = setInterval(() => {
    turns++;
    standStill(70);
  }, 1);
  await done.promise;
  clearInterval(timer);
  assertLess(turns, 60);
});
