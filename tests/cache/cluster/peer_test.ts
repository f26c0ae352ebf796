import { assert, assertEquals, assertRejects } from "@std/assert";
import { BlobUnavailableError } from "../../../lib/cache/store/blob_store.ts";
import type { Lease, LeaseHolder, Leases } from "../../../lib/cache/cluster/lease.ts";
import {
  FollowedSource,
  peerHasNothing,
  UnreachablePeers,
} from "../../../lib/cache/cluster/peer.ts";
import { within } from "../../../lib/util/deadline.ts";
import { bytesOf, contentOf, randomBytes } from "../../support/content.ts";
import { store } from "../../support/blob_store_contract.ts";
import { captureLogs } from "../../support/logs.ts";
import { MemoryStore } from "../../support/memory_store.ts";
import { freePort } from "../../support/temp.ts";

const BLOB = contentOf(randomBytes(10_000, 1));
const KEY = "key";

/** Leases of one digest that somebody else has, until it is given up. */
class OneLease implements Leases {
  holder: LeaseHolder | undefined;

  constructor(url: string) {
    this.holder = { url, key: KEY };
  }

  acquire(): Promise<{ lease: Lease } | { holder: LeaseHolder }> {
    if (this.holder) return Promise.resolve({ holder: this.holder });
    const lease = { isHeld: () => Promise.resolve(true), release: () => Promise.resolve() };
    return Promise.resolve({ lease });
  }

  isTaken = () => Promise.resolve(this.holder !== undefined);
  isHeldBy = () => Promise.resolve(this.holder !== undefined);
}

/** A source that follows what is at `url`, with upstream behind it. */
function follow(url: string, unreachable = new UnreachablePeers()) {
  const leases = new OneLease(url);
  const stored = new MemoryStore();
  const asked: number[] = [];
  const checked: string[] = [];
  const source = new FollowedSource({
    digest: BLOB.digest,
    holder: leases.holder!,
    leases,
    store: stored,
    open: (digest) => stored.open(digest),
    check: (digest) => Promise.resolve(void checked.push(digest)),
    unreachable,
    upstream: {
      open(offset) {
        asked.push(offset);
        return Promise.resolve(new Blob([bytesOf(BLOB).slice(offset)]).stream());
      },
    },
  });
  const read = async () => new Uint8Array(await new Response(await source.open(0)).arrayBuffer());
  return {
    leases,
    source,
    stored,
    asked,
    checked,
    read,
    [Symbol.asyncDispose]: () => source.release(),
  };
}

/** How many requests came to listeners. */
let requests = 0;

/** Something that listens, and what it answers. */
function listener(answer: () => Response) {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => {
    requests++;
    return answer();
  });
  const url = `http://127.0.0.1:${server.addr.port}`;
  return { url, [Symbol.asyncDispose]: () => server.shutdown() };
}

const partial = (body: BodyInit) => new Response(body, { status: 206 });

/** Ways in which nothing of a fill comes from where the holder said that it is. */
const SILENT: Readonly<Record<string, () => { url: string } & AsyncDisposable>> = {
  "nobody listens": () => ({
    url: `http://127.0.0.1:${freePort()}`,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }),
  "nobody answers": () => {
    const open: Deno.Conn[] = [];
    const socket = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const accepting = (async () => {
      for await (const conn of socket) open.push(conn);
    })();
    return {
      url: `http://127.0.0.1:${(socket.addr as Deno.NetAddr).port}`,
      async [Symbol.asyncDispose]() {
        socket.close();
        await accepting;
        for (const conn of open) conn.close();
      },
    };
  },
  "another server answers": () => listener(() => new Response("Not found", { status: 404 })),
  "a body has no byte": () => listener(() => partial(new ReadableStream({ start() {} }))),
};

for (const [name, start] of Object.entries(SILENT)) {
  Deno.test(`an instance reads from upstream by itself after a while where ${name}, and says so once`, async () => {
    await using peer = start();
    using logs = await captureLogs();
    const unreachable = new UnreachablePeers();
    for (let i = 0; i < 3; i++) {
      await using followed = follow(peer.url, unreachable);
      const before = requests;
      // Five times as long as it may wait.
      assertEquals(await within(followed.read(), { ms: 10_000, what: "The read" }), bytesOf(BLOB));
      assertEquals(followed.asked, [0]);
      // The first waits for two seconds; who comes after it knows, and does not try.
      if (i > 0) assertEquals(requests, before);
      assertEquals(followed.source.isOurs, false);
    }
    assertEquals(logs.find(/^Cannot reach the instance/).length, 1);
  });
}

Deno.test("what was read beside a holder that died is published, and what the holder has published is not", async () => {
  const url = `http://127.0.0.1:${freePort()}`;
  const unreachable = new UnreachablePeers();
  unreachable.add({ url, key: KEY });
  for (const [isDead, isStored] of [[true, false], [true, true], [false, false]] as const) {
    await using followed = follow(url, unreachable);
    await followed.read();
    if (isDead) followed.leases.holder = undefined;
    if (isStored) await store(followed.stored, bytesOf(BLOB));
    const closing = isDead || isStored ? undefined : Promise.resolve();
    assertEquals(await followed.source.mayPublish(closing), isDead && !isStored);
  }
});

Deno.test("what was read beside a holder waits for its lease to end before it is published", async () => {
  const url = `http://127.0.0.1:${freePort()}`;
  const unreachable = new UnreachablePeers();
  unreachable.add({ url, key: KEY });
  await using followed = follow(url, unreachable);
  await followed.read();
  let acquired = 0;
  const { leases } = followed;
  const acquire = leases.acquire.bind(leases);
  leases.acquire = () => {
    // It dies while it is waited for.
    if (++acquired === 2) leases.holder = undefined;
    return acquire();
  };
  assertEquals([await followed.source.mayPublish(), acquired], [true, 2]);
});

Deno.test("a holder that says it has nothing yet is waited for, and upstream is not asked", async () => {
  let answers = 0;
  const started = performance.now();
  await using peer = listener(() =>
    performance.now() - started < 2_500 ? (answers++, peerHasNothing()) : partial(bytesOf(BLOB))
  );
  await using followed = follow(peer.url);
  assertEquals(await followed.read(), bytesOf(BLOB));
  assertEquals(followed.asked, []);
  assert(answers >= 3, `${answers}`);
});

Deno.test("an instance that could not be reached is tried again after a while, and told of anew once it was there", async () => {
  using logs = await captureLogs();
  let now = 0;
  const unreachable = new UnreachablePeers({ now: () => now });
  const peer = { url: "http://one", key: KEY };
  assertEquals(unreachable.has(peer), false);
  unreachable.add(peer);
  assertEquals(unreachable.has(peer), true);
  now += 30_000;
  assertEquals(unreachable.has(peer), false);
  unreachable.add(peer);
  assertEquals(logs.find(/^Cannot reach/).length, 1);
  unreachable.delete(peer);
  unreachable.add(peer);
  assertEquals(logs.find(/^Cannot reach/).length, 2);
  for (let i = 0; i < 1_000; i++) unreachable.add({ url: `http://${i}`, key: KEY });
  assertEquals(unreachable.has(peer), false);
});

Deno.test("what the holder has stored is read from there, and from upstream where the store fails in the middle", async () => {
  await using peer = listener(() => peerHasNothing());
  await using followed = follow(peer.url);
  const { stored, leases, source, asked } = followed;
  await store(stored, bytesOf(BLOB));
  let reads = 0;
  stored.fail = (operation) =>
    operation === "read" && ++reads > 1 ? new BlobUnavailableError("It breaks off") : undefined;
  const reader = (await source.open(0)).getReader();
  const first = (await reader.read()).value!;
  await assertRejects(() => reader.read(), BlobUnavailableError);
  leases.holder = undefined;
  const rest = await new Response(await source.open(first.byteLength)).bytes();
  assertEquals(asked, [first.byteLength]);
  assertEquals(new Uint8Array([...first, ...rest]), bytesOf(BLOB));
});

Deno.test("wrong bytes that came from the store or another instance are not called upstream's", async () => {
  for (const from of ["the store", "another instance", "upstream"]) {
    await using peer = listener(() =>
      from === "another instance" ? partial(bytesOf(BLOB)) : peerHasNothing()
    );
    using logs = await captureLogs();
    await using followed = follow(peer.url);
    if (from === "the store") await store(followed.stored, bytesOf(BLOB));
    if (from === "upstream") followed.leases.holder = undefined;
    assertEquals(await followed.read(), bytesOf(BLOB));
    assertEquals(followed.source.mismatched("wrong"), from !== "upstream");
    // What is stored is looked at, for the next reader would get the same.
    assertEquals(followed.checked, from === "the store" ? [BLOB.digest] : []);
    const told = logs.find(/^Bytes of/).map(({ properties }) => properties.where);
    assertEquals(told, from === "upstream" ? [] : [from]);
  }
});
