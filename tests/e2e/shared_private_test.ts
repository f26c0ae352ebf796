/**
 * What is private among several instances: grants are shared, end, and are all that counts while Redis is gone.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { RedisGrants } from "../../lib/cache/cluster/grants.ts";
import { Redis } from "../../lib/cache/store/redis.ts";
import { parseRedisUrl } from "../../lib/config/engine_url.ts";
import { startRedis } from "../support/engines.ts";
import { ANY, type Fleet, startFleet, token } from "../support/fleet.ts";
import { whole } from "../support/http.ts";
import { blobsOf, type Image, makeImage, manifestsOf } from "../support/image.ts";
import type { TestProxy } from "../support/proxy.ts";
import { toolTest } from "../support/requirements.ts";
import { until } from "../support/until.ts";

const BOTH = ["redis-server", "versitygw"] as const;
const IMAGE = makeImage({ layers: [100_000] });

async function startPrivateFleet(): Promise<Fleet> {
  const fleet = await startFleet(2, { users: { alice: "a", bob: "b" } });
  fleet.registry.add("team/secret", "1", IMAGE, { readers: ["alice"] });
  return fleet;
}

/** What each piece of the image is answered with to who shows `bearer`: status and `X-Cache`. */
async function ask(proxy: TestProxy, bearer: string, image: Image = IMAGE): Promise<string[]> {
  const manifest = manifestsOf(image)[0]!.digest;
  const pieces = ["manifests/1", `manifests/${manifest}`];
  for (const { digest } of blobsOf(image)) pieces.push(`blobs/${digest}`);
  const headers = { ...ANY, authorization: `Bearer ${bearer}` };
  const answers = [];
  for (const piece of pieces) {
    const answer = await whole(`${proxy.url}/v2/team/secret/${piece}`, { headers });
    answers.push(`${answer.status} ${answer.headers.get("x-cache")}`);
  }
  return answers;
}

const everything = (answer: string) => Array.from({ length: 4 }, () => answer);

toolTest("who was let in at one instance is known at the others, without upstream being asked", {
  needs: BOTH,
  async fn() {
    await using fleet = await startPrivateFleet();
    const [a, b] = fleet.instances as [TestProxy, TestProxy];
    const alice = await token(a, "team/secret", "alice:a");
    await until(async () => (await ask(a, alice)).every((answer) => answer === "200 HIT"));
    const asked = fleet.registry.count({});
    assertEquals(await ask(b, alice), everything("200 HIT"));
    assertEquals(fleet.registry.count({}), asked);
    const bob = await token(b, "team/secret", "bob:b");
    assertEquals(await ask(b, bob), everything("401 null"));
  },
});

toolTest(
  "while Redis is gone an instance lets in whom it let in before, others by asking, and nobody else",
  {
    needs: BOTH,
    async fn() {
      await using fleet = await startPrivateFleet();
      const [a, b] = fleet.instances as [TestProxy, TestProxy];
      const alice = await token(a, "team/secret", "alice:a");
      const bob = await token(a, "team/secret", "bob:b");
      await until(async () => (await ask(a, alice)).every((answer) => answer === "200 HIT"));
      await fleet.redis.kill();
      const asked = fleet.registry.count({});
      assertEquals(await ask(a, alice), everything("200 HIT"));
      assertEquals(fleet.registry.count({}), asked);
      assertEquals((await ask(b, alice)).map((answer) => answer.slice(0, 3)), everything("200"));
      for (const proxy of [a, b]) assertEquals(await ask(proxy, bob), everything("401 null"));
    },
  },
);

toolTest("a shared grant ends by itself, and at once where upstream refuses", {
  needs: ["redis-server"],
  async fn() {
    await using server = await startRedis();
    const location = parseRedisUrl(server.url);
    const [one, two] = await Promise.all(
      [1, 2].map(() => Redis.connect({ location, onDown() {}, onUp() {} })),
    );
    try {
      const [here, there] = [new RedisGrants(one!), new RedisGrants(two!)];
      await here.add("short", 300);
      await here.add("long", 60_000);
      assertEquals([await there.has("short"), await there.has("long")], [true, true]);
      await until(async () => !await there.has("short"));
      assertEquals(await there.has("long"), true);
      await there.remove("long");
      assertEquals(await here.has("long"), false);
    } finally {
      one!.close();
      two!.close();
    }
  },
});
