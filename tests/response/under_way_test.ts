import { assert, assertEquals, assertRejects } from "@std/assert";
import { OciError } from "../../lib/oci/error.ts";
import { reserveMemory, SharedBytes } from "../../lib/response/under_way.ts";
import { MemoryBudget } from "../../lib/util/memory_budget.ts";

Deno.test("large content that many answers send is here once", () => {
  const budget = new MemoryBudget({ limit: 100 });
  const shared = new SharedBytes(budget);
  const held = Array.from({ length: 250 }, () => shared.hold("sha256:a", new Uint8Array(40)));
  assertEquals(new Set(held.map(({ bytes }) => bytes)).size, 1);
  assertEquals([budget.used, shared.size], [40, 1]);
  const other = shared.hold("sha256:b", new Uint8Array(10));
  assertEquals([budget.used, shared.size], [50, 2]);
  for (const { release } of held) {
    release();
    release();
  }
  assertEquals([budget.used, shared.size], [10, 1]);
  other.release();
  assertEquals([budget.used, shared.size], [0, 0]);
});

Deno.test("without memory there is an error that says when to try again", async () => {
  const budget = new MemoryBudget({ limit: 10, maxWaiting: 0 });
  budget.take(10);
  const error = await assertRejects(() => reserveMemory(5, budget), OciError);
  assertEquals([error.status, error.headers?.["retry-after"]], [503, "5"]);
  budget.remove(10);
  const release = await reserveMemory(5, budget);
  assertEquals(budget.used, 5);
  release();
  assert(budget.used === 0);
});
