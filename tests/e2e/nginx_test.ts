/** The nginx configuration of docs/tls.md, in front of a proxy. */
import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { makeCertificate } from "../support/certificate.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { connectionOf, type RawAnswer, renderRequest } from "../support/http.ts";
import { digestOf, makeImage } from "../support/image.ts";
import { background } from "../support/process.ts";
import { ROOT, startProxy } from "../support/proxy_process.ts";
import { toolTest, which } from "../support/requirements.ts";
import { freePort, tempDir } from "../support/temp.ts";

/** The server block of docs/tls.md, for these files and ports. */
async function serverBlock(to: { port: number; proxy: string; cert: string; key: string }) {
  const page = await Deno.readTextFile(join(ROOT, "docs/tls.md"));
  const [, block = ""] = /```nginx\n([^]*?)```/.exec(page)!;
  return [
    ["listen 443 ssl", `listen 127.0.0.1:${to.port} ssl`],
    ["/etc/ssl/example.com/fullchain.pem", to.cert],
    ["/etc/ssl/example.com/privkey.pem", to.key],
    ["http://127.0.0.1:8080", to.proxy],
  ].reduce((text, [from, into]) => {
    if (!text.includes(from!)) {
      throw new Error(`${from} is not in the nginx example of docs/tls.md`);
    }
    return text.replace(from!, into!);
  }, block);
}

toolTest("behind the nginx of docs/tls.md clients get https URLs, and layers whole and in part", {
  needs: ["nginx", "openssl"],
  async fn() {
    await using dir = await tempDir();
    await using upstream = await startFakeRegistry({ auth: "token" });
    const image = makeImage({ layers: [3_000_000] });
    upstream.add("team/app", "1", image);
    const { certPath, keyPath, ca } = await makeCertificate(dir.path, [
      "corp.example.com",
      "127.0.0.1",
    ]);
    await using proxy = await startProxy({
      env: { CUSTOM_DOMAIN: "example.com", UPSTREAM_CORP: upstream.url, TRUST_PROXY: "true" },
    });
    const port = freePort();
    const block = await serverBlock({ port, proxy: proxy.url, cert: certPath, key: keyPath });
    const config = join(dir.path, "nginx.conf");
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map((name) => `${name}_temp_path ${dir.path}/${name};`).join(" ");
    await Deno.writeTextFile(
      config,
      `daemon off; error_log stderr; pid ${dir.path}/pid; events {}
       http { access_log off; ${temporary} ${block} }`,
    );
    const nginx = background(which("nginx")!, { args: ["-p", dir.path, "-c", config] });
    try {
      const ask = async (
        path: string,
        options: { headers?: [string, string][]; method?: string } = {},
      ) => {
        const { headers = [], method = "GET" } = options;
        const connection = connectionOf(await connect(port, ca));
        try {
          const request = {
            path,
            method,
            headers: [["host", "corp.example.com"], ...headers] as const,
          };
          await connection.write(renderRequest("", request));
          return await connection.answer({ method });
        } finally {
          connection.close();
        }
      };
      const path = "/v2/team/app";
      const refused = await ask("/v2/");
      assertEquals(refused.status, 401);
      assertEquals(
        refused.headers.get("www-authenticate"),
        `Bearer realm="https://corp.example.com/v2/auth",service="deno-docker-proxy"`,
      );
      const { token } = JSON.parse(text(await ask("/v2/auth?scope=repository:team/app:pull")));
      const headers: [string, string][] = [["authorization", `Bearer ${token}`]];
      assertEquals(digestOf((await ask(`${path}/manifests/1`, { headers })).body), image.digest);
      const head = await ask(`${path}/manifests/1`, { headers, method: "HEAD" });
      assertEquals(head.headers.get("content-length"), String(image.size));
      const [layer] = image.layers;
      const blob = `${path}/blobs/${layer!.digest}`;
      assertEquals(digestOf((await ask(blob, { headers })).body), layer!.digest);
      const part = await ask(blob, { headers: [...headers, ["range", "bytes=10-19"]] });
      assertEquals([part.status, part.body.byteLength], [206, 10]);
      // Nothing of a layer was written to nginx's own disk.
      const buffered = [...Deno.readDirSync(join(dir.path, "proxy"))].length;
      assertEquals(buffered, 0);
    } finally {
      await nginx.stop();
    }
  },
});

/** A TLS connection to nginx, as soon as it listens. */
async function connect(port: number, ca: string): Promise<Deno.TlsConn> {
  for (let tries = 0;; tries++) {
    try {
      return await Deno.connectTls({ hostname: "127.0.0.1", port, caCerts: [ca] });
    } catch (error) {
      if (tries > 250 || !(error instanceof Deno.errors.ConnectionRefused)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

function text({ body }: RawAnswer): string {
  return new TextDecoder().decode(body);
}
