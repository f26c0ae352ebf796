/**
 * Downloads that are stopped because nobody reads them, among instances that share a cache.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { MAX_UNWANTED } from "../../lib/cache/content/fills.ts";
import { contentOf, randomBytes } from "../support/content.ts";
import { startFleet } from "../support/fleet.ts";
import { whole } from "../support/http.ts";
import type { TestProxy } from "../support/proxy.ts";
import { toolTest } from "../support/requirements.ts";
import { until } from "../support/until.ts";

const SIZE = 8 * 2 ** 20;
const HALF = SIZE / 2;
const KIND = { kind: "blob", method: "GET" } as const;

/** Two instances, of which the first has stopped the download of the last blob. */
async function startStopped() {
  const fleet = await startFleet(2, { auth: "none" });
  const { registry } = fleet;
  const [a, b] = fleet.instances as [TestProxy, TestProxy];
  const blobs = Array.from({ length: MAX_UNWANTED + 1 }, (_, i) => {
    const blob = contentOf(randomBytes(SIZE, i + 1));
    registry.addBlob("library/big", blob);
    return blob;
  });
  const stall = registry.faults.add(KIND, { stallAt: HALF });
  const urlOf = (proxy: TestProxy, digest: string) => `${proxy.url}/v2/library/big/blobs/${digest}`;
  for (const { digest } of blobs) {
    const left = new AbortController();
    const response = await fetch(urlOf(a, digest), { signal: left.signal });
    await response.body?.getReader().read();
    left.abort();
  }
  const unread = () => a.proxy.cache!.content.unreadFills;
  await until(() => unread().stopped === 1);
  stall.remove();
  const { digest } = blobs.at(-1)!;
  return {
    ...{ registry, a, b, digest, unread },
    get: (proxy: TestProxy) => whole(urlOf(proxy, digest), { signal: AbortSignal.timeout(30_000) }),
    asked: () => registry.log.filter((entry) => entry.reference === digest),
    [Symbol.asyncDispose]: () => fleet[Symbol.asyncDispose](),
  };
}

toolTest("a stopped download goes on at its instance, and others have it then", {
  needs: ["redis-server", "versitygw"],
  async fn() {
    await using t = await startStopped();
    assertEquals((await t.get(t.a)).digest, t.digest);
    const range = t.asked().at(-1)?.headers.get("range") ?? "";
    const from = Number(/^bytes=(\d+)-/.exec(range)?.[1]);
    assert(from > 0 && from <= HALF, range);
    await t.a.proxy.cache!.content.settled(t.digest);
    assertEquals(t.a.stats.cacheEvents.get("fill_continued"), 1);
    const answer = await t.get(t.b);
    assertEquals([answer.digest, answer.headers.get("x-cache")], [t.digest, "HIT"]);
  },
});

toolTest(
  "a download that one instance has stopped is anybody's, and the one that stopped it has the whole then",
  {
    needs: ["redis-server", "versitygw"],
    async fn() {
      await using t = await startStopped();
      assertEquals((await t.get(t.b)).digest, t.digest);
      await t.b.proxy.cache!.content.settled(t.digest);
      const before = t.asked().length;
      const answer = await t.get(t.a);
      assertEquals([answer.digest, answer.headers.get("x-cache")], [t.digest, "HIT"]);
      assertEquals(t.asked().slice(before).filter(({ status }) => status === 200), []);
    },
  },
);

toolTest("an instance follows another's download from where its own was stopped", {
  needs: ["redis-server", "versitygw"],
  async fn() {
    await using t = await startStopped();
    t.registry.faults.add(KIND, { stallAt: HALF + 2 ** 20, stallFor: 4_000 });
    const first = t.get(t.b);
    const isBeyond = ({ received }: { received: number }) => received > HALF + 2 ** 19;
    await until(() => [...t.b.proxy.cache!.content.fills].some(isBeyond));
    const second = t.get(t.a);
    assertEquals([(await first).digest, (await second).digest], [t.digest, t.digest]);
    assertEquals(t.a.stats.cacheEvents.get("fill_continued"), 1);
    for (const { proxy } of [t.b, t.a]) await proxy.cache!.content.settled(t.digest);
    assertEquals((await t.get(t.a)).headers.get("x-cache"), "HIT");
    assertEquals(t.unread().stopped, 0);
  },
});
