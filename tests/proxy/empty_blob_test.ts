import { assertEquals } from "@std/assert";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { contentOf } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";

for (const cache of ["true", "false"]) {
  Deno.test(`an empty body is no blob but the empty one, cache ${cache}`, async () => {
    await using upstream = await startFakeRegistry();
    const blob = contentOf(new TextEncoder().encode("something"));
    const nothing = contentOf(new Uint8Array());
    for (const one of [blob, nothing]) upstream.addBlob("team/app", one);
    await using proxy = await startTestProxy({
      upstreams: { corp: upstream },
      env: { CACHE_ENABLED: cache },
    });
    const base = `${proxy.url}/v2/corp/team/app/blobs/`;
    upstream.faults.add({ kind: "blob" }, { body: "" }, { times: 1 });
    const wrong = await whole(base + blob.digest);
    assertEquals([wrong.status, wrong.json.errors[0].code], [502, "UNAVAILABLE"]);
    assertEquals(proxy.stats.cacheEvents.get("mismatch"), 1);
    const right = await whole(base + blob.digest);
    assertEquals([right.status, right.digest], [200, blob.digest]);
    const empty = await whole(base + nothing.digest);
    assertEquals([empty.status, empty.bytes.byteLength], [200, 0]);
  });
}
