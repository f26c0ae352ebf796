import { assertEquals } from "@std/assert";
import { parse as parseToml } from "@std/toml";
import { parseAll } from "@std/yaml";
import { runProxy } from "../support/proxy_process.ts";

Deno.test("config docker prints a daemon.json that can be redirected to its file", async () => {
  const { code, stdout, stderr } = await runProxy(["config", "docker"], { PORT: "9000" });
  assertEquals(code, 0);
  assertEquals(JSON.parse(stdout), { "registry-mirrors": ["http://localhost:9000"] });
  assertEquals(stderr.split("\n")[0], "# /etc/docker/daemon.json");
});

Deno.test("--url sets the proxy's address in the client configuration", async () => {
  const args = ["config", "docker", "--url", "https://proxy.example"];
  const { stdout } = await runProxy(args);
  assertEquals(JSON.parse(stdout), { "registry-mirrors": ["https://proxy.example"] });
});

for (const kind of ["podman", "buildkit"]) {
  Deno.test(`config ${kind} prints TOML and nothing else`, async () => {
    const { code, stdout } = await runProxy(["config", kind]);
    assertEquals([code, Object.keys(parseToml(stdout))], [0, ["registry"]]);
  });
}

Deno.test("config kubernetes can be piped to kubectl", async () => {
  const { stdout } = await runProxy(["config", "kubernetes"]);
  const kinds = parseAll(stdout).map((document) => (document as { kind: string }).kind);
  assertEquals(kinds, ["ConfigMap", "DaemonSet"]);
});

Deno.test("config containerd prints its files under their names", async () => {
  const { stdout } = await runProxy(["config", "containerd"]);
  const paths = stdout.split("\n").filter((line) => line.startsWith("# /"));
  assertEquals(paths.includes("# /etc/containerd/certs.d/ghcr.io/hosts.toml"), true);
});

Deno.test("--json prints files and steps, and the settings without a client", async () => {
  const client = JSON.parse((await runProxy(["config", "docker", "--json"])).stdout);
  assertEquals(client.files.map(({ path }: { path: string }) => path), ["/etc/docker/daemon.json"]);
  const settings = JSON.parse(
    (await runProxy(["config", "--json"], { PORT: "9000", LOG_FORMAT: "json" })).stdout,
  );
  assertEquals([settings.PORT, settings.LOG_FORMAT], ["9000", "json"]);
});
