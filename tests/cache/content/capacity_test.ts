import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { type Admission, Capacity } from "../../../lib/cache/content/capacity.ts";
import type { Index } from "../../../lib/cache/index/index.ts";
import { SqliteIndex } from "../../../lib/cache/index/sqlite_index.ts";
import { Stats } from "../../../lib/telemetry/stats.ts";
import { diskFull, MemoryStore } from "../../support/memory_store.ts";

const MINUTE = 60_000;
const KEY = { registry: "r", repository: "a/b" };

function digest(n: number): string {
  return `sha256:${n.toString(16).padStart(64, "0")}`;
}

/** A space of `maxSize` bytes with its parts and a clock of its own; what is just filled counts for 5 s. */
function setUp(maxSize: number) {
  const clock = { now: 1_000_000 };
  const now = () => clock.now;
  const index = new SqliteIndex(":memory:", { now });
  const store = new MemoryStore();
  store.now = now;
  const stats = new Stats();
  const removed: string[] = [];
  const space = new Capacity({
    index,
    store,
    maxSize,
    stats,
    now,
    onRemoved: (d) => void removed.push(d),
  });
  /** Stores content of `size` bytes, as a fill does; false when it is not admitted. */
  const fill = async (n: number, size: number): Promise<boolean> => {
    const admission = await space.reserve(size);
    if (!admission) return false;
    await publish(n, size);
    admission.release();
    return true;
  };
  const publish = (n: number, size: number) =>
    space.change(digest(n), async () => {
      const draft = await store.begin(digest(n));
      await draft.write(new Uint8Array(size));
      await draft.commit();
      const at = now();
      const row = { digest: digest(n), size, createdAt: at, usedAt: at, verifiedAt: at };
      index.addBlob(row);
    });
  /** The numbers of what is here, having checked that store and index agree. */
  const here = (): number[] => {
    const rows = index.leastRecent(1_000_000).sort((a, b) => a.digest < b.digest ? -1 : 1);
    assertEquals(rows.map((r) => r.digest), [...store.content.keys()].sort());
    assertEquals(index.totals().bytes, store.bytes);
    return rows.map((r) => parseInt(r.digest.slice(7), 16));
  };
  return {
    clock,
    index,
    store,
    stats,
    space,
    removed,
    fill,
    publish,
    here,
    [Symbol.dispose]: () => index.close(),
  };
}

Deno.test("what was used longest ago leaves first, and a use counts before it is written down", async () => {
  using t = setUp(100);
  for (const n of [1, 2, 3, 4]) {
    assert(await t.fill(n, 25));
    t.clock.now += MINUTE;
  }
  t.space.use(digest(1));
  t.clock.now += MINUTE;
  assert(await t.fill(5, 30));
  assertEquals(t.here(), [1, 4, 5]);
  assertEquals(t.removed, [digest(2), digest(3)]);
  assertEquals(t.stats.cacheEvents.get("evicted_space"), 2);
});

Deno.test("links and tags leave with the content that is evicted", async () => {
  using t = setUp(100);
  await t.fill(1, 60);
  t.index.addLink({ ...KEY, digest: digest(1), kind: "blob" }, { mediaType: "" });
  t.index.setTag(KEY, "latest", { digest: digest(1), checkedAt: 1 });
  t.clock.now += MINUTE;
  assert(await t.fill(2, 60));
  assertEquals(t.index.link({ ...KEY, digest: digest(1), kind: "blob" }), undefined);
  assertEquals(t.index.tag(KEY, "latest"), undefined);
  assertEquals(t.index.pending(), []);
});

Deno.test("content on its way counts before it is here, and no longer when it is not coming", async () => {
  using t = setUp(100);
  const first = await t.space.reserve(70);
  assert(first);
  assertEquals(await t.space.reserve(31), undefined);
  const second = await t.space.reserve(30);
  assert(second);
  first.release();
  first.release();
  assertEquals(t.index.totals().reserved, 30);
  assert(await t.space.reserve(70));
});

Deno.test("a hundred admissions at once stay within the cap together", async () => {
  using t = setUp(1_000);
  for (let n = 0; n < 10; n++) await t.fill(n, 90);
  t.clock.now += MINUTE;
  const asked = await Promise.all(Array.from({ length: 100 }, () => t.space.reserve(30)));
  const given = asked.filter((admission) => admission !== undefined);
  assertEquals(given.length, 33);
  const { bytes, reserved } = t.index.totals();
  assert(bytes + reserved <= 1_000, `${bytes} + ${reserved}`);
});

Deno.test("admissions that need room at once evict what they need together, and no more", async () => {
  using t = setUp(100);
  for (let n = 0; n < 10; n++) await t.fill(n, 10);
  t.clock.now += MINUTE;
  const asked = await Promise.all([15, 15, 15, 25].map((bytes) => t.space.reserve(bytes)));
  assert(asked.every((admission) => admission !== undefined));
  assertEquals(t.here(), [7, 8, 9]);
});

Deno.test("so they do where the index is far away", async () => {
  using t = setUp(100);
  for (let n = 0; n < 10; n++) await t.fill(n, 10);
  t.clock.now += MINUTE;
  const far = new Proxy<Index>(t.index, {
    get(index, name) {
      const value = Reflect.get(index, name, index);
      if (typeof value !== "function") return value;
      return async (...args: unknown[]) => {
        await new Promise((resolve) => setTimeout(resolve, 0));
        return value.apply(index, args);
      };
    },
  });
  const { store, stats } = t;
  const space = new Capacity({ index: far, store, stats, maxSize: 100, now: () => t.clock.now });
  const asked = await Promise.all([15, 15, 15, 25].map((bytes) => space.reserve(bytes)));
  assert(asked.every((admission) => admission !== undefined));
  assertEquals(t.here(), [7, 8, 9]);
});

Deno.test("an admission that is refused evicts nothing", async () => {
  using t = setUp(100);
  for (const n of [1, 2, 3]) await t.fill(n, 20);
  t.clock.now += MINUTE;
  const unpin = t.space.pin(digest(3));
  assertEquals(await t.space.reserve(101), undefined);
  assertEquals(await t.space.reserve(81), undefined);
  assertEquals(t.here(), [1, 2, 3]);
  assert(await t.space.reserve(80));
  assertEquals(t.here(), [3]);
  unpin();
});

Deno.test("what is to be kept stays until something else is to be kept", async () => {
  const t = setUp(300);
  for (const n of [1, 2, 3]) await t.fill(n, 100);
  t.clock.now += MINUTE;
  t.space.keep(new Set([digest(1), digest(2)]));
  assert(await t.fill(4, 100));
  assertEquals(t.here(), [1, 2, 4]);
  await t.space.removeUnused(0);
  assertEquals(t.here().includes(1), true);
  t.space.keep(new Set());
  t.clock.now += MINUTE;
  assert(await t.fill(5, 300));
  assertEquals(t.here(), [5]);
});

Deno.test("what somebody reads or writes, or has just been filled, is not evicted", async () => {
  using t = setUp(100);
  await t.fill(1, 40);
  const unpin = t.space.pin(digest(1));
  const unpinAgain = t.space.pin(digest(1));
  t.clock.now += MINUTE;
  await t.fill(2, 40);
  assertEquals(await t.space.reserve(30), undefined); // one is read, the other has just come
  unpin();
  unpin();
  assertEquals(await t.space.reserve(30), undefined); // read by a second still
  t.clock.now += 5_001;
  (await t.space.reserve(30))?.release();
  assertEquals(t.here(), [1]);
  unpinAgain();
  assert(await t.space.reserve(70));
  assertEquals(t.here(), []);
});

Deno.test("content that is used between being chosen and leaving stays", async () => {
  using t = setUp(100);
  for (const n of [1, 2, 3]) await t.fill(n, 30);
  t.clock.now += MINUTE;
  t.store.before = (operation, d) => {
    if (operation === "remove" && d === digest(1)) t.space.use(digest(2));
  };
  (await t.space.reserve(60))?.release();
  assertEquals(t.here(), [2]);
});

Deno.test("a clock that was set back does not make all content just filled", async () => {
  using t = setUp(100);
  await t.fill(1, 80);
  t.clock.now -= 60 * MINUTE;
  assert(await t.space.reserve(50));
  assertEquals(t.here(), []);
});

Deno.test("content of unknown length takes room as it grows, until there is none", async () => {
  using t = setUp(1_000);
  await t.fill(1, 400);
  t.clock.now += MINUTE;
  const admission = await t.space.reserve(0);
  assert(admission);
  for (let size = 100; size <= 600; size += 100) assert(await admission.grow(100));
  assertEquals(t.here(), [1]);
  for (let size = 700; size <= 1_000; size += 100) {
    assert(await admission.grow(100), `${size}`);
    assert(t.index.totals().reserved >= size);
    assert(t.index.totals().reserved + t.index.totals().bytes <= 1_000);
  }
  assertEquals(t.here(), []);
  assertEquals(await admission.grow(1), false);
  assertEquals(await admission.grow(0), true);
  admission.release();
  assertEquals(t.index.totals().reserved, 0);
});

Deno.test("growing asks the index once in a while, not for every piece of a body", async () => {
  using t = setUp(2 ** 30);
  let asked = 0;
  const { index } = t;
  const totals = index.totals.bind(index);
  index.totals = () => {
    asked++;
    return totals();
  };
  const admission = (await t.space.reserve(0))!;
  for (let i = 0; i < 10_000; i++) assert(await admission.grow(16 * 1024));
  assert(asked < 500, `asked ${asked} times`);
});

Deno.test("content that was not used for the time to live leaves, except while it is read", async () => {
  using t = setUp(1_000);
  for (let n = 1; n <= 300; n++) await t.fill(n, 1);
  t.clock.now += 10 * MINUTE;
  t.space.use(digest(7));
  const unpin = t.space.pin(digest(9));
  await t.fill(301, 1);
  t.clock.now += MINUTE;
  assertEquals(await t.space.removeUnused(5 * MINUTE), 298);
  assertEquals(t.here(), [7, 9, 301]);
  unpin();
  assertEquals(await t.space.removeUnused(5 * MINUTE), 1);
  assertEquals(t.stats.cacheEvents.get("evicted_unused"), 299);
});

Deno.test("a cap that was lowered is kept at the next start", async () => {
  using t = setUp(50);
  for (let n = 1; n <= 6_000; n++) {
    const at = t.clock.now + n;
    t.store.content.set(digest(n), { bytes: new Uint8Array(1), storedAt: at });
    t.index.restoreBlobs([{
      digest: digest(n),
      size: 1,
      createdAt: at,
      usedAt: at,
      verifiedAt: at,
    }]);
  }
  t.clock.now += MINUTE;
  await t.space.trim();
  assertEquals(t.here(), Array.from({ length: 50 }, (_, i) => 5_951 + i));
});

Deno.test("what is in quarantine takes room, and is the first to make room", async () => {
  using t = setUp(100);
  await t.fill(1, 40);
  await t.fill(2, 40);
  t.clock.now += MINUTE;
  await t.space.remove(digest(1), "damaged");
  assertEquals(t.store.aside.get(digest(1))?.size, 40);
  assertEquals(t.stats.cacheEvents.get("quarantined"), 1);
  (await t.space.reserve(20))?.release();
  assertEquals(t.store.aside.size, 1);
  assert(await t.space.reserve(21)); // 40 aside + 40 here + 21
  assertEquals(t.store.aside.size, 0);
  assertEquals(t.here(), [2]);
});

Deno.test("what is in quarantine goes after a week", async () => {
  using t = setUp(100);
  await t.fill(1, 40);
  await t.space.remove(digest(1), "damaged");
  t.clock.now += 6 * 24 * 60 * MINUTE;
  await t.space.tidyQuarantine();
  assertEquals(t.store.aside.size, 1);
  t.clock.now += 2 * 24 * 60 * MINUTE;
  await t.space.tidyQuarantine();
  assertEquals(t.store.aside.size, 0);
});

Deno.test("a full disk takes the place of the cap: the next admission evicts instead of failing", async () => {
  using t = setUp(1_000);
  for (const n of [1, 2, 3]) await t.fill(n, 100);
  t.clock.now += MINUTE;
  await t.space.diskIsFull({ drafts: 0 });
  assert(await t.fill(4, 50));
  assertEquals(t.here(), [2, 3, 4]);
  assertEquals(await t.space.reserve(301), undefined);
  t.clock.now += MINUTE; // believed no longer: somebody may have made room
  assert(await t.space.reserve(301));
  assertEquals(t.here(), [2, 3, 4]);
});

Deno.test("what unfinished content takes of a full disk is room for what comes after it", async () => {
  using t = setUp(2 ** 30);
  await t.fill(1, 100);
  t.clock.now += MINUTE;
  await t.space.diskIsFull({ drafts: 2 ** 20 + 500 }); // a MiB of it is for the index
  assert(await t.fill(2, 500));
  assertEquals(t.here(), [1, 2]);
  assert(await t.fill(3, 50));
  assertEquals(t.here(), [2, 3]);
});

Deno.test("on a disk too full for a note of it, content can still be evicted", async () => {
  using t = setUp(100);
  await t.fill(1, 80);
  t.clock.now += MINUTE;
  let isFull = true;
  const { index, store } = t;
  const refuse = () => {
    if (isFull) throw new Error("database or disk is full");
  };
  for (const name of ["markPending", "touch", "removeBlob"] as const) {
    const method = index[name].bind(index) as (argument: unknown) => void;
    index[name] = (argument: unknown) => {
      refuse();
      method(argument);
    };
  }
  const remove = store.remove.bind(store);
  store.remove = async (d) => {
    await remove(d);
    isFull = false; // there is room now
  };
  t.space.use(digest(2));
  assert(await t.space.reserve(50));
  assertEquals(t.here(), []);
});

Deno.test("uses that cannot be written are written later", async () => {
  using t = setUp(1_000);
  await t.fill(1, 10);
  const at = t.clock.now += MINUTE;
  t.space.use(digest(1));
  const touch = t.index.touch.bind(t.index);
  t.index.touch = () => {
    throw diskFull();
  };
  await assertRejects(() => t.space.flush());
  t.index.touch = touch;
  t.clock.now += MINUTE;
  await t.space.flush();
  assertEquals(t.index.blob(digest(1))?.usedAt, at);
});

Deno.test("damaged bytes are out of reach before the index forgets them; others only after", async () => {
  using t = setUp(1_000);
  await t.fill(1, 10);
  await t.fill(2, 10);
  t.store.fail = (operation) => operation === "begin" ? undefined : new Error("power failure");
  await assertRejects(() => t.space.remove(digest(1), "damaged"));
  assert(
    t.index.blob(digest(1)),
    "a row without bytes is found out; bytes without a row are believed",
  );
  await assertRejects(() => t.space.remove(digest(2), "removed"));
  assertEquals(t.index.blob(digest(2)), undefined);
  assertEquals(t.index.pending().sort(), [digest(1), digest(2)]);
});

Deno.test("content that leaves and comes back at once is here in the end", async () => {
  using t = setUp(1_000);
  await t.fill(1, 10);
  t.clock.now += MINUTE;
  const gate = Promise.withResolvers<void>();
  t.store.before = (operation) => operation === "remove" ? gate.promise : undefined;
  const leaving = t.space.remove(digest(1), "removed");
  const coming = t.publish(1, 10);
  gate.resolve();
  await Promise.all([leaving, coming]);
  assertEquals(t.here(), [1]);
});

Deno.test("nothing is admitted while the index does not know what is here", async () => {
  using t = setUp(1_000);
  await t.space.closedFor(async () => {
    assertEquals(await t.space.reserve(1), undefined);
  });
  assert(await t.space.reserve(1));
});

// A naive cache: a list of entries, searched from the front. The space must do what it does, step by step.

interface Entry {
  readonly n: number;
  readonly size: number;
  readonly filledAt: number;
  usedAt: number;
}

class Model {
  readonly entries = new Map<number, Entry>();
  readonly pins = new Map<number, number>();
  readonly onTheWay = new Map<number, number>();
  readonly #cap: number;

  constructor(cap: number) {
    this.#cap = cap;
  }

  get used(): number {
    const stored = [...this.entries.values()].reduce((sum, entry) => sum + entry.size, 0);
    return stored + [...this.onTheWay.values()].reduce((sum, size) => sum + size, 0);
  }

  admit(bytes: number, now: number): boolean {
    const missing = this.used + bytes - this.#cap;
    const leaving: Entry[] = [];
    let freed = 0;
    for (const entry of [...this.entries.values()].sort((a, b) => a.usedAt - b.usedAt)) {
      if (freed >= missing) break;
      if (this.pins.has(entry.n) || now - entry.filledAt < 5_000) continue;
      leaving.push(entry);
      freed += entry.size;
    }
    if (freed < missing) return false;
    for (const { n } of leaving) this.entries.delete(n);
    return true;
  }
}

Deno.test("whatever comes, is used, read and abandoned in whatever order: what stays is what a naive cache keeps", async () => {
  const n = fc.integer({ min: 1, max: 12 });
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant("start" as const), n, size: fc.nat(60) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("finish" as const), n }) },
    fc.record({ do: fc.constant("abandon" as const), n }),
    { weight: 3, arbitrary: fc.record({ do: fc.constant("use" as const), n }) },
    fc.record({ do: fc.constant("pin" as const), n }),
    fc.record({ do: fc.constant("unpin" as const), n }),
    fc.record({ do: fc.constant("flush" as const), n }),
    fc.record({ do: fc.constant("expire" as const), n }),
    { weight: 2, arbitrary: fc.record({ do: fc.constant("wait" as const), n, ms: fc.nat(9_000) }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      using t = setUp(150);
      const model = new Model(150);
      const admissions = new Map<number, Admission>();
      const unpins = new Map<number, (() => void)[]>();
      for (const s of steps) {
        const now = ++t.clock.now;
        switch (s.do) {
          case "start": {
            if (admissions.has(s.n) || model.entries.has(s.n)) break;
            const admission = await t.space.reserve(s.size);
            assertEquals(admission !== undefined, model.admit(s.size, now));
            if (!admission) break;
            admissions.set(s.n, admission);
            model.onTheWay.set(s.n, s.size);
            break;
          }
          case "finish": {
            const admission = admissions.get(s.n);
            if (!admission) break;
            const size = model.onTheWay.get(s.n)!;
            await t.publish(s.n, size);
            admission.release();
            admissions.delete(s.n);
            model.onTheWay.delete(s.n);
            model.entries.set(s.n, { n: s.n, size, filledAt: now, usedAt: now });
            break;
          }
          case "abandon":
            admissions.get(s.n)?.release();
            admissions.delete(s.n);
            model.onTheWay.delete(s.n);
            break;
          case "use": {
            const entry = model.entries.get(s.n);
            if (!entry) break;
            t.space.use(digest(s.n));
            entry.usedAt = now;
            break;
          }
          case "pin":
            unpins.set(s.n, [...unpins.get(s.n) ?? [], t.space.pin(digest(s.n))]);
            model.pins.set(s.n, (model.pins.get(s.n) ?? 0) + 1);
            break;
          case "unpin": {
            const unpin = unpins.get(s.n)?.pop();
            if (!unpin) break;
            unpin();
            const left = model.pins.get(s.n)! - 1;
            if (left > 0) model.pins.set(s.n, left);
            else model.pins.delete(s.n);
            break;
          }
          case "flush":
            await t.space.flush();
            break;
          case "expire":
            await t.space.removeUnused(20_000);
            for (const entry of [...model.entries.values()]) {
              const isOld = entry.usedAt < now - 20_000;
              if (isOld && !model.pins.has(entry.n)) model.entries.delete(entry.n);
            }
            break;
          case "wait":
            t.clock.now += s.ms;
            break;
        }
        assertEquals(t.here(), [...model.entries.keys()].sort((a, b) => a - b));
        const { bytes, reserved } = t.index.totals();
        assertEquals(bytes + reserved, model.used);
        assert(bytes + reserved <= 150);
      }
    }),
    { numRuns: 300 },
  );
});
