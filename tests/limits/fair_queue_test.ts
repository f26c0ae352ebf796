import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
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
    "Too many downloads are queued",
  );
  assertEquals([error.status, error.headers?.["retry-after"], rejected], [429, "10", 1]);
  end();
  (await waiting)();
});

Deno.test("a waiter that was queued for too long is rejected, and leaves no gap", async () => {
  const queue = new FairQueue({ limit: 1, maxWait: 10 });
  const end = await queue.enter({ client: "a", repository: "x" });
  await assertRejects(
    () => queue.enter({ client: "b", repository: "x" }),
    OciError,
    "was queued for too long",
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

Deno.test("one client has no more places than it may have, and leaves the others to others", async () => {
  const queue = new FairQueue({ limit: 4, perClient: () => 2 });
  const own = { client: "a", repository: "x" };
  const places = [await queue.enter(own), await queue.enter(own)];
  assertEquals(queue.tryEnter(own), undefined);
  const third = queue.enter(own);
  const other = await queue.enter({ client: "b", repository: "x" });
  assertEquals([queue.running, queue.waiting], [3, 1]);
  other(); // a place is free, but not for "a"
  assertEquals([queue.running, queue.waiting], [2, 1]);
  places[0]!();
  assertEquals([queue.running, queue.waiting], [2, 0]);
  for (const leave of [places[1]!, await third]) leave();
  assertEquals([queue.running, queue.clients], [0, 0]);
});

Deno.test("a thousand requests of one client delay another's single one by no more than its turn", async () => {
  const queue = new FairQueue({ limit: 4 });
  const running: (() => void)[] = [];
  const started: string[] = [];
  const enter = (client: string, n: number) =>
    void queue.enter({ client, repository: `${n % 10}` }).then((leave) => {
      started.push(client);
      running.push(leave);
    });
  for (let n = 0; n < 1000; n++) enter("many", n);
  enter("one", 0);
  await settle();
  assertEquals([started.length, queue.waiting], [4, 997]);
  for (let n = 0; n < 2; n++) {
    running.shift()!();
    await settle();
  }
  assertEquals(started.slice(4), ["one", "many"]); // who has all the places is not the next
  while (queue.running > 0) {
    running.shift()?.();
    await Promise.resolve();
  }
});

Deno.test("a full queue of one client's admits another, and the client loses what it wanted last", async () => {
  let rejected = 0;
  const queue = new FairQueue({ limit: 1, maxWaiting: 5, onRejected: () => rejected++ });
  const end = await queue.enter({ client: "a", repository: "x" });
  const fate: string[] = [];
  const enter = (client: string, name: string) =>
    queue.enter({ client, repository: name }).then((leave) => {
      fate.push(`${name} started`);
      leave();
    }, (error) => void fate.push(`${name} ${error.status}`));
  const all = ["a1", "a2", "a3", "a4", "a5"].map((name) => enter("a", name));
  await settle();
  all.push(enter("a", "a6"));
  await settle();
  assertEquals(fate, ["a6 429"]);
  all.push(enter("b", "b1"), enter("c", "c1"));
  await settle();
  assertEquals(fate, ["a6 429", "a5 429", "a4 429"]);
  assertEquals([queue.waiting, rejected], [5, 3]);
  end();
  await Promise.all(all);
  assertEquals(fate.slice(3).sort(), ["a1", "a2", "a3", "b1", "c1"].map((n) => `${n} started`));
  assertEquals([queue.running, queue.waiting, queue.clients], [0, 0, 0]);
});

Deno.test("whoever gives up waiting makes room at once, and takes no place later", async () => {
  const queue = new FairQueue({ limit: 1 });
  const end = await queue.enter({ client: "a", repository: "x" });
  const leaving = new AbortController();
  const gone = queue.enter({ client: "b", repository: "x" }, leaving.signal);
  const stays = queue.enter({ client: "c", repository: "x" });
  leaving.abort(new Error("The client has left"));
  await assertRejects(() => gone, Error, "The client has left");
  await assertRejects(() => queue.enter({ client: "b", repository: "x" }, leaving.signal), Error);
  assertEquals([queue.waiting, queue.clients], [1, 2]);
  end();
  (await stays)();
  assertEquals([queue.running, queue.waiting, queue.clients], [0, 0, 0]);
});

Deno.test("whatever comes and goes, the limits hold, and nothing is left over", async () => {
  await fc.assert(fc.asyncProperty(
    fc.array(fc.tuple(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 3 })), {
      maxLength: 120,
    }),
    async (steps) => {
      const queue = new FairQueue({ limit: 3, perClient: () => 2, maxWaiting: 6 });
      const places: { client: string; leave: () => void }[] = [];
      const waiting: Promise<void>[] = [];
      const aborts: AbortController[] = [];
      const check = () => {
        assert(queue.running <= 3 && queue.waiting <= 6);
        const counts = Map.groupBy(places, ({ client }) => client);
        for (const own of counts.values()) assert(own.length <= 2);
      };
      for (const [who, what] of steps) {
        if (what === 0) places.shift()?.leave();
        else if (what === 1) aborts.shift()?.abort(new Error("left"));
        else {
          const abort = new AbortController();
          aborts.push(abort);
          const client = `${who}`;
          waiting.push(
            queue.enter({ client, repository: `${what}` }, abort.signal)
              .then((leave) => void places.push({ client, leave }), () => {}),
          );
        }
        for (let i = 0; i < 4; i++) await Promise.resolve();
        check();
      }
      for (const abort of aborts) abort.abort(new Error("left"));
      while (queue.running > 0) {
        places.shift()?.leave();
        for (let i = 0; i < 4; i++) await Promise.resolve();
        check();
      }
      await Promise.all(waiting);
      assertEquals([queue.running, queue.waiting, queue.clients], [0, 0, 0]);
    },
  ));
});

Deno.test("the work of a full queue does not grow with how many wait", async () => {
  const costOf = async (size: number) => {
    const queue = new FairQueue({ limit: 1, maxWaiting: size });
    const end = await queue.enter({ client: "first", repository: "x" });
    const owner = (n: number) => ({ client: `${n % 7}`, repository: `${n % 5}` });
    let last = Promise.resolve();
    const aborts: AbortController[] = [];
    for (let n = 0; n < size; n++) {
      const abort = new AbortController();
      aborts.push(abort);
      last = queue.enter(owner(n), abort.signal).then((leave) => leave(), () => {});
    }
    const began = performance.now();
    // From the front, from the back and from the middle.
    for (let n = 0; n < size; n += 2) aborts[(n * 7919) % size]!.abort(new Error("left"));
    for (let n = 0; n < 500; n++) {
      queue.enter({ client: `new ${n}`, repository: "x" }).then((leave) => leave(), () => {});
    }
    end();
    await last;
    while (queue.waiting > 0) await settle();
    return (performance.now() - began) / size;
  };
  await costOf(2_000);
  const few = Math.min(await costOf(2_000), await costOf(2_000));
  const many = Math.min(await costOf(20_000), await costOf(20_000));
  // For each one the same, whatever the machine does meanwhile: a scan would take ten times as much.
  assert(many < 4 * few, `${many} ms for each of many, ${few} of few`);
});
