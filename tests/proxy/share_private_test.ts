import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";
import { tempDir } from "../support/temp.ts";

Deno.test("what is shared is fetched with whichever of the operator's accounts may read it", async () => {
  const users = { ann: "a", bob: "b", cat: "c", eve: "e" };
  await using docker = await startFakeRegistry({ auth: "token", users });
  for (const name of Object.keys(users)) {
    for (let i = 0; i < 3; i++) {
      const image = makeImage({ seed: name.charCodeAt(0) + i });
      docker.add(`team/${name}${i}`, "1", image, { readers: [name] });
    }
  }
  await using dir = await tempDir();
  const file = join(dir.path, "accounts");
  await Deno.writeTextFile(file, "ann:a\nbob:b\ncat:c\n");
  await using proxy = await startTestProxy({
    upstreams: { docker },
    env: { UPSTREAM_DOCKER_CREDENTIALS_FILE: file, UPSTREAM_DOCKER_SHARE_PRIVATE: "true" },
  });
  const headers = { accept: "application/vnd.oci.image.manifest.v1+json" };
  const ask = async (name: string) =>
    (await whole(`${proxy.url}/v2/team/${name}/manifests/1`, { headers })).status;
  // Accounts take turns: each repository would get the wrong one now and then.
  for (const name of ["ann", "bob", "cat"]) {
    for (let i = 0; i < 3; i++) assertEquals([name, i, await ask(name + i)], [name, i, 200]);
  }
  // None of the operator's accounts may read that.
  assertEquals(await ask("eve0") >= 400, true);
});
