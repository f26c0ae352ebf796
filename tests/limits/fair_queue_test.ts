import { assert, assertEquals, assertRejects } from "@std/assert";
import { FairQueue } from "../../lib/limits/fair_queue.ts";
import { OciError } from "../../lib/oci/error.ts";

/** Lets everything that is ready run. */
const settle = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

/** A queue of one place that is taken, and the order in which the others get it. */
async function makeOrder(owners: readonly [client: string, repository: string][]) {
  const queue = new FairQueue({ limit: 1 });
  const first = await queue.enter({ client: "first", repository: "first" });
  const order: string[] = [];
  const all = owners.map(async ([client, repository]) => {
    const end = await queue.enter({ client, repository });
    order.push(`${client} ${repository}`);
    end();
  });
  first();
  await Promise.all(all);
  assertEquals([queue.running, queue.waiting], [0, 0]);
  return order;
}

Deno.test("clients take turns, however many one of them wants", async () => {
  const order = await makeOrder([["a", "x"], ["a", "x"], ["a", "x"], ["b", "x"], ["c", "x"]]);
  assertEquals(order, ["a x", "b x", "c x", "a x", "a x"]);
});

Deno.test("within a client its repositories take turns", async () => {
  const order = await makeOrder([["a", "x"], ["a", "x"], ["a", "y"], ["b", "z"]]);
  assertEquals(order, ["a x", "b z", "a y", "a x"]);
});

Deno.test("no more run at once than the limit says", async () => {
  const queue = new FairQueue({ limit: 3 });
  const ends = await Promise.all(
    [1, 2, 3].map((n) => queue.enter({ client: `${n}`, repository: "x" })),
  );
  let started = false;
  const fourth = queue.enter({ client: "4", repository: "x" }).then((end) => {
    started = true;
    return end;
  });
  await settle();
  assertEquals([started, queue.running, queue.waiting], [false, 3, 1]);
  ends[0]!();
  ends[0]!(); // ending twice frees one place
  (await fourth)();
  assertEquals([queue.running, queue.waiting], [2, 0]);
});

Deno.test("whoever finds the queue full is turned away with 429 and told when to come again", async () => {
  let rejected = 0;
  const queue = new FairQueue({ limit: 1, maxWaiting: 1, onRejected: () => rejected++ });
  const end = await queue.enter({ client: "a", repository: "x" });
  const waiting = queue.enter({ client: "a", repository: "x" });
  const error = await assertRejects(
    () => queue.enter({ client: "b", repository: "x" }),
    OciError,
    "Too many downloads wait",
  );
  assertEquals([error.status, error.headers?.["retry-after"], rejected], [429, "10", 1]);
  end();
  (await waiting)();
});

Deno.test("whoever has waited too long is turned away, and leaves no gap", async () => {
  const queue = new FairQueue({ limit: 1, maxWait: 10 });
  const end = await queue.enter({ client: "a", repository: "x" });
  await assertRejects(
    () => queue.enter({ client: "b", repository: "x" }),
    OciError,
    "waited too long",
  );
  assertEquals([queue.running, queue.waiting], [1, 0]);
  const next = queue.enter({ client: "c", repository: "x" });
  end();
  (await next)();
  assertEquals(queue.running, 0);
});

Deno.test("a place is handed on: who comes at that moment does not get in between", async () => {
  const queue = new FairQueue({ limit: 1 });
  const end = await queue.enter({ client: "a", repository: "x" });
  const order: string[] = [];
  const note = (name: string) => (leave: () => void) => {
    order.push(name);
    leave();
  };
  const waiting = queue.enter({ client: "b", repository: "x" }).then(note("b"));
  end();
  const late = queue.enter({ client: "c", repository: "x" }).then(note("c"));
  await Promise.all([waiting, late]);
  assertEquals(order, ["b", "c"]);
  assert(queue.running === 0);
});
