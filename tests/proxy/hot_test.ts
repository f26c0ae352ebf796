import { assert, assertEquals } from "@std/assert";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { basicHeader } from "../support/fake_token.ts";
import { whole, wholeAt } from "../support/http.ts";
import { bytesOf, makeImage, MEDIA } from "../support/image.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";

/** How often the index is asked from now on: an answer from memory does not ask it. */
function lookups(proxy: TestProxy): () => number {
  const { index } = proxy.proxy.cache!;
  let count = 0;
  const link = index.link.bind(index);
  index.link = (key) => {
    count++;
    return link(key);
  };
  return () => count;
}

/** An upstream with one image, and a proxy that has given it often enough to have it in memory. */
async function warm(options: { env?: Record<string, string> } = {}) {
  const upstream = await startFakeRegistry({ auth: "token", users: { ann: "secret" } });
  const image = makeImage({ layers: [3000] });
  upstream.add("team/app", "1", image);
  const proxy = await startTestProxy({ upstreams: { corp: upstream }, ...options });
  const base = `${proxy.url}/v2/corp/team/app`;
  const blob = image.layers[0]!;
  const urls = {
    tag: `${base}/manifests/1`,
    digest: `${base}/manifests/${image.digest}`,
    blob: `${base}/blobs/${blob.digest}`,
  };
  await whole(urls.tag);
  await whole(urls.blob);
  await proxy.proxy.cache!.content.settled(blob.digest);
  for (const url of Object.values(urls)) {
    for (const method of ["GET", "HEAD"]) await whole(url, { method });
  }
  return {
    upstream,
    image,
    blob,
    proxy,
    base,
    urls,
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await upstream.close();
    },
  };
}

Deno.test("what was given twice is given from memory, the same to the last header", async () => {
  await using all = await warm();
  const asked = lookups(all.proxy);
  for (const url of Object.values(all.urls)) {
    for (const method of ["GET", "HEAD"]) {
      const before = asked();
      const hot = await whole(url, { method });
      assertEquals(asked(), before, `${method} ${url}`);
      // A condition that is not met: looked at in full, with the same outcome.
      const slow = await whole(url, { method, headers: { "if-none-match": '"other"' } });
      assertEquals(asked(), before + 1);
      assertEquals([hot.status, hot.digest], [slow.status, slow.digest]);
      const headers = (answer: typeof hot) =>
        [...answer.headers].filter(([name]) => name !== "date" && name !== "age");
      assertEquals(headers(hot), headers(slow));
      assertEquals(hot.headers.get("x-cache"), "HIT");
      assert(Number(hot.headers.get("age")) >= 0);
    }
  }
});

Deno.test("conditions, ranges and what a client accepts are looked at all the same", async () => {
  await using all = await warm();
  const { urls, image, blob } = all;
  const unchanged = await whole(urls.tag, { headers: { "if-none-match": `"${image.digest}"` } });
  assertEquals([unchanged.status, unchanged.bytes.byteLength], [304, 0]);
  const part = await whole(urls.blob, { headers: { range: "bytes=0-9" } });
  assertEquals([part.status, part.bytes], [206, bytesOf(blob).slice(0, 10)]);
  const other = await whole(urls.tag, { headers: { accept: MEDIA.docker.manifest } });
  assert(other.headers.get("x-cache") !== "HIT", "upstream says what it has for this client");
  const accepting = await whole(urls.tag, { headers: { accept: `${MEDIA.oci.manifest}, x/y` } });
  assertEquals([accepting.status, accepting.headers.get("x-cache")], [200, "HIT"]);
});

Deno.test("who is known by a token gets what is public, a malformed credential does not", async () => {
  await using all = await warm();
  const asked = lookups(all.proxy);
  const headers = (authorization: string) => ({ headers: { authorization } });
  const token = await whole(all.urls.tag, headers("Bearer anything"));
  const basic = await whole(all.urls.tag, headers(basicHeader("ann", "secret")));
  assertEquals([token.status, basic.status, asked()], [200, 200, 0]);
  for (const malformed of ["Basic !", "Digest x", "Basic"]) {
    assertEquals((await whole(all.urls.tag, headers(malformed))).status, 401, malformed);
  }
});

Deno.test("what only some may read is never kept in memory for others", async () => {
  await using all = await warm();
  const image = makeImage({ seed: 2 });
  all.upstream.add("team/secret", "1", image, { readers: ["ann"] });
  const ask = (path: string, authorization?: string) =>
    wholeAt(all.proxy.host, `http://corp.localhost/v2/${path}`, { authorization });
  const login = basicHeader("ann", "secret");
  const { token } = (await ask("auth?scope=repository:team/secret:pull", login)).json;
  const path = "team/secret/manifests/1";
  for (let i = 0; i < 3; i++) {
    const mine = await ask(path, `Bearer ${token}`);
    assertEquals([mine.status, mine.digest], [200, image.digest]);
    assertEquals((await ask(path)).status, 401);
    assertEquals((await ask(path, "Bearer other")).status, 401);
  }
});

Deno.test("a repository that turns out not to be public any more is forgotten at once", async () => {
  await using all = await warm();
  all.upstream.setAccess("team/app", ["ann"]);
  all.upstream.revokeTokens();
  // Something that is not here: upstream is asked, and refuses.
  assertEquals((await whole(`${all.base}/manifests/2`)).status, 401);
  for (const url of Object.values(all.urls)) assertEquals((await whole(url)).status, 401, url);
});

Deno.test("content that is removed is not answered from memory, by tag neither", async () => {
  await using all = await warm();
  const { content } = all.proxy.proxy.cache!;
  all.upstream.control.failWith = 503;
  await content.remove(all.image.digest, "removed");
  await content.remove(all.blob.digest, "removed");
  for (const url of Object.values(all.urls)) {
    for (const method of ["GET", "HEAD"]) assertEquals((await whole(url, { method })).status, 502);
  }
});

Deno.test("a tag that is set anew is answered with what it means now", async () => {
  await using all = await warm();
  const next = makeImage({ seed: 2 });
  all.upstream.add("team/app", "1", next);
  assertEquals((await whole(all.urls.tag)).digest, all.image.digest);
  // As an upkeep or another request finds out.
  await whole(`${all.base}/manifests/${next.digest}`);
  const key = { registry: new URL(all.upstream.url).host, repository: "team/app" };
  const { index } = all.proxy.proxy.cache!;
  assert(await index.tag(key, "1"), "the key is not the one that is used");
  await index.setTag(key, "1", { digest: next.digest, checkedAt: Date.now() });
  assertEquals((await whole(all.urls.tag)).digest, next.digest);
  await index.removeTag(key, "1");
  assertEquals((await whole(all.urls.tag)).headers.get("x-cache"), "MISS");
});

Deno.test("a tag that has become old is asked for upstream", async () => {
  await using all = await warm({ env: { CACHE_MANIFEST_TTL: "1s" } });
  const heads = () => all.upstream.count({ method: "HEAD", kind: "manifest" });
  const before = heads();
  for (let tries = 0; heads() === before && tries < 400; tries++) {
    await whole(all.urls.tag);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assertEquals(heads(), before + 1);
});

Deno.test("answers from memory are counted like all others", async () => {
  await using all = await warm();
  const { stats } = all.proxy;
  const count = () => stats.requests.get("corp manifest 2xx HIT");
  const before = { count: count(), bytes: stats.bytesFromCache };
  const asked = lookups(all.proxy);
  await whole(all.urls.tag);
  await whole(all.urls.tag, { method: "HEAD" });
  assertEquals([count(), asked()], [before.count + 2, 0]);
  assertEquals(stats.bytesFromCache, before.bytes + all.image.manifest.byteLength);
});

Deno.test("where clients are counted or chosen, none is answered from memory alone", async () => {
  for (const [name, value] of [["RATE_LIMIT", "1000/1h"], ["ALLOW_CLIENTS", "127.0.0.0/8"]]) {
    await using all = await warm({ env: { [name!]: value! } });
    const asked = lookups(all.proxy);
    await whole(all.urls.tag);
    assertEquals(asked(), 1);
  }
});

Deno.test("answers from memory keep content from being evicted as unused", async () => {
  await using all = await warm();
  const { content, index } = all.proxy.proxy.cache!;
  await content.space.flush();
  await index.touch(new Map());
  const used = async () => (await index.blob(all.image.digest))!.usedAt;
  const before = await used();
  while (Date.now() <= before);
  await whole(all.urls.tag);
  await content.space.flush();
  assert(await used() > before);
});
