import { assert, assertEquals } from "@std/assert";
import { MemoryBudget } from "../../lib/util/memory_budget.ts";

Deno.test("what is taken is counted, and refused beyond the limit", () => {
  const budget = new MemoryBudget({ limit: 100 });
  assert(budget.take(60));
  assert(!budget.take(60));
  assertEquals(budget.used, 60);
  budget.remove(60);
  assert(budget.take(60));
});

Deno.test("what is larger than the whole budget is let in alone", () => {
  const budget = new MemoryBudget({ limit: 100 });
  assert(budget.take(500));
  assert(!budget.take(1));
});

Deno.test("a reservation waits until there is room, in turn", async () => {
  const budget = new MemoryBudget({ limit: 100 });
  budget.take(80);
  const order: string[] = [];
  const large = budget.reserve(90, 60_000).then((release) => {
    order.push("large");
    return release!;
  });
  const small = budget.reserve(10, 60_000).then((release) => {
    order.push("small");
    return release!;
  });
  assert(!budget.take(5), "nobody gets in between");
  budget.remove(80);
  const release = await large;
  await small;
  assertEquals(order, ["large", "small"]);
  assertEquals(budget.used, 100);
  release();
  release();
  assertEquals(budget.used, 10);
});

Deno.test("a reservation without room comes to nothing, and lets those behind it go on", async () => {
  const budget = new MemoryBudget({ limit: 100 });
  budget.take(50);
  const large = budget.reserve(80, 1);
  const small = budget.reserve(40, 60_000);
  assertEquals(await large, undefined);
  assert(await small);
  assertEquals(budget.used, 90);
});

Deno.test("only so many wait", async () => {
  const budget = new MemoryBudget({ limit: 10, maxWaiting: 1 });
  budget.take(10);
  const first = budget.reserve(5, 60_000);
  assertEquals(await budget.reserve(5, 60_000), undefined);
  budget.remove(10);
  assert(await first);
});

Deno.test("under pressure those who hold memory are asked to give way", () => {
  const budget = new MemoryBudget({ limit: 100 });
  let held = 90;
  const stop = budget.onPressure(() => {
    budget.remove(held);
    held = 0;
  });
  budget.add(90);
  assertEquals(budget.used, 90);
  assert(budget.take(50), "the room was made at once");
  budget.remove(50);
  stop();
  budget.add(200);
  assertEquals(budget.used, 200, "what is in use already is never refused");
});
