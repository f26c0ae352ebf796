import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { createHash, createHmac } from "node:crypto";
import { Access } from "../../../lib/auth/access.ts";
import { RedisGrants } from "../../../lib/cache/cluster/grants.ts";
import type { Redis } from "../../../lib/cache/store/redis.ts";
import { registryOf } from "../../../lib/oci/registry.ts";
import type { Credential } from "../../../lib/transforms/auth.ts";
import { fakeRedis } from "../../support/redis.ts";

const KEY = { registry: "registry-1.docker.io", repository: "team/secret" };
const ann: Credential = { kind: "basic", username: "ann", password: "summer2026" };
const CONFIGURED = ["the password of Redis", "the key of S3"];

/** All that is in Redis, as who could read it whole would have it. */
async function dump(redis: Redis): Promise<string> {
  const [, names] = await redis.command("SCAN", "0", "COUNT", "1000") as [string, string[]];
  const values = await Promise.all(
    names.map((name) => redis.command("GET", name).catch(() => "")),
  );
  return names.map((name, i) => `${name} ${values[i]}`).join("\n");
}

async function agreed(redis: Redis, configured: readonly string[] = CONFIGURED) {
  const grants = new RedisGrants(redis, { configured });
  await grants.agree();
  return grants;
}

Deno.test("instances agree on what a grant is called, whoever is first, and credentials and repositories are told apart", async () => {
  await using made = await fakeRedis();
  const [one, two] = await Promise.all([agreed(made.redis), agreed(made.redis)]);
  const name = one.nameOf(ann, KEY);
  assert(name);
  assertEquals(two.nameOf(ann, KEY), name);
  await one.add(name, 60_000);
  assert(await two.has(two.nameOf(ann, KEY)!));
  const others = [
    one.nameOf({ ...ann, password: "winter2026" }, KEY),
    one.nameOf({ kind: "bearer", token: "summer2026" }, KEY),
    one.nameOf(ann, { ...KEY, repository: "team/other" }),
    one.nameOf(ann, { ...KEY, registry: "quay.io" }),
  ];
  for (const other of others) assertNotEquals(other, name);
});

Deno.test("with all that is in Redis no guess of a password can be tested, without what instances are configured with", async () => {
  await using made = await fakeRedis();
  const { redis } = made;
  const grants = await agreed(redis);
  const name = grants.nameOf(ann, KEY)!;
  await grants.add(name, 60_000);
  const all = await dump(redis);
  assert(all.includes(name));
  const random = await redis.command("GET", redis.key("secret")) as string;
  const text = JSON.stringify(['["basic","ann","summer2026"]', KEY.registry, KEY.repository]);
  const derive = (configured: string) =>
    createHmac("sha256", createHmac("sha256", random).update(configured).digest())
      .update(text).digest("base64url");
  // The guess is right, and is recognized with the secrets alone.
  assertEquals(derive(JSON.stringify(CONFIGURED)), name);
  for (const guess of ["[]", "[null,null]", JSON.stringify(["other", "secrets"])]) {
    assert(!all.includes(derive(guess)));
  }
  for (const encoding of ["hex", "base64", "base64url"] as const) {
    for (const plain of ["summer2026", "ann:summer2026", text]) {
      assert(!all.includes(createHash("sha256").update(plain).digest(encoding)));
    }
  }
  assertMatch(name, /^[\w-]{43}$/);
});

Deno.test("another cache calls the same grant otherwise", async () => {
  await using here = await fakeRedis();
  await using there = await fakeRedis();
  const [one, other] = [await agreed(here.redis), await agreed(there.redis)];
  assertNotEquals(one.nameOf(ann, KEY), other.nameOf(ann, KEY));
});

Deno.test("a Redis that lost everything gets the same secret again, or instances take the new one", async () => {
  await using made = await fakeRedis();
  const { redis } = made;
  const one = await agreed(redis);
  const two = await agreed(redis);
  const name = one.nameOf(ann, KEY);
  await redis.command("DEL", redis.key("secret"));
  await one.agree();
  assertEquals(one.nameOf(ann, KEY), name);
  await redis.command("DEL", redis.key("secret"));
  const late = await agreed(redis);
  assertNotEquals(late.nameOf(ann, KEY), name);
  await Promise.all([one.agree(), two.agree()]);
  assertEquals(one.nameOf(ann, KEY), late.nameOf(ann, KEY));
  assertEquals(two.nameOf(ann, KEY), late.nameOf(ann, KEY));
});

Deno.test("while instances cannot agree grants are not shared, and each goes by its own", async () => {
  await using made = await fakeRedis();
  made.fake.faults.refuseWrites = "OOM command not allowed";
  const grants = await agreed(made.redis);
  assertEquals(grants.nameOf(ann, KEY), undefined);
  const marks = { publicSince: () => undefined, setPublic() {} };
  const access = new Access({ marks, isAnonymousToken: () => false, shared: grants });
  const caller = access.caller(registryOf("docker", new URL("https://registry-1.docker.io")), ann);
  assertEquals(await access.mayRead(caller, KEY), false);
  await access.allowed(caller, KEY, { used: ann });
  assertEquals(await access.mayRead(caller, KEY), true);
  await access.refused(caller, KEY, ann);
  assertEquals(await access.mayRead(caller, KEY), false);
});
