/** The Caddy configuration of docs/tls.md, in front of a proxy. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { makeCertificate } from "../support/certificate.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { makeImage } from "../support/image.ts";
import { inNamespace } from "../support/namespace.ts";
import { background, must } from "../support/process.ts";
import { ROOT, startProxy } from "../support/proxy_process.ts";
import { requestLines } from "../support/request_lines.ts";
import { toolTest, which } from "../support/requirements.ts";
import { freePort, tempDir } from "../support/temp.ts";

/** The site of docs/tls.md, at this port and with these files. */
async function site(to: { port: number; proxy: string; cert: string; key: string }) {
  const page = await Deno.readTextFile(join(ROOT, "docs/tls.md"));
  const [, text = ""] = /```caddy\n([^]*?)```/.exec(page)!;
  const [names = "", ...rest] = text.split("\n");
  assert(
    /^example\.com, docker\.example\.com, .*\{$/.test(names) && text.includes("127.0.0.1:8080"),
  );
  return [
    // What a machine on the internet does by itself cannot be done here.
    `{\n\tadmin off\n\tauto_https disable_redirects\n}`,
    names.replaceAll(/example\.com(?=[, ])/g, `example.com:${to.port}`),
    `\tbind 127.0.0.1`,
    `\ttls ${to.cert} ${to.key}`,
    ...rest,
  ].join("\n").replace("127.0.0.1:8080", to.proxy);
}

toolTest(
  "behind the Caddy of docs/tls.md a client pulls by https, and is sent to https for its token",
  {
    needs: ["root", "unshare", "caddy", "crane", "openssl"],
    async fn() {
      await using dir = await tempDir();
      await using upstream = await startFakeRegistry({ auth: "token" });
      const image = makeImage({ layers: [3_000_000] });
      upstream.add("team/app", "1", image);
      const host = "ghcr.example.com";
      const { certPath, keyPath, caPath } = await makeCertificate(dir.path, [host]);
      await using proxy = await startProxy({
        env: {
          CUSTOM_DOMAIN: "example.com",
          UPSTREAM_GHCR: upstream.url,
          TRUST_PROXY: "true",
          LOG_FORMAT: "json",
        },
      });
      const port = freePort();
      const config = join(dir.path, "Caddyfile");
      const text = await site({ port, proxy: proxy.host, cert: certPath, key: keyPath });
      await Deno.writeTextFile(config, text);
      const caddy = background(which("caddy")!, {
        args: ["run", "--adapter", "caddyfile", "--config", config],
        env: { HOME: dir.path, XDG_DATA_HOME: dir.path, XDG_CONFIG_HOME: dir.path },
      });
      try {
        await caddy.line(/serving initial configuration/, 20_000);
        const before = await inNamespace(dir.path, { [host]: "127.0.0.1" });
        const words = [...before, which("crane")!, "pull", "--format", "oci"];
        const env = { HOME: dir.path, DOCKER_CONFIG: dir.path, SSL_CERT_FILE: caPath };
        const to = join(dir.path, "pulled");
        await must(words[0]!, [...words.slice(1), `${host}:${port}/team/app:1`, to], { env });
        assert((await Deno.readTextFile(join(to, "index.json"))).includes(image.digest));
      } finally {
        await caddy.stop();
      }
      await proxy.stop();
      // crane takes no realm at http from a registry at https: that there was a token says where it was.
      const asked = requestLines(proxy).filter(({ kind }) => kind === "blob" || kind === "token");
      assertEquals(asked.map(({ kind, status }) => [kind, status]).sort(), [
        ["blob", 200],
        ["blob", 200],
        ["token", 200],
      ]);
      for (const line of asked) assertEquals(line.host, `${host}:${port}`);
    },
  },
);
