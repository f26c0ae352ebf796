import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import fc from "fast-check";
import { parse as parseToml } from "@std/toml";
import { parseAll } from "@std/yaml";
import {
  clientConfig,
  type ClientKind,
  instanceOf,
  parseInstanceUrl,
  throughProxy,
} from "../../lib/operator/client_config.ts";
import { parseConfig } from "../../lib/config/config.ts";
import { OciError } from "../../lib/oci/error.ts";

const config = parseConfig({ UPSTREAM_CORP: "http://registry.corp.example:5000" });
const plain = instanceOf(config, new URL("http://10.0.0.5:8080"));
const local = instanceOf(config);
const secure = instanceOf(config, new URL("https://proxy.example"));

function textOf(kind: ClientKind, instance = plain, path?: string): string {
  const { files } = clientConfig(kind, instance);
  const file = files.find((one) => path === undefined || one.path === path);
  return file!.text;
}

// deno-lint-ignore no-explicit-any
type Parsed = any;

Deno.test("the URL follows from the settings: plain http with its port on loopback, https behind a domain", () => {
  const urlOf = (env: Record<string, string>) => instanceOf(parseConfig(env)).url.origin;
  assertEquals(urlOf({}), "http://localhost:8080");
  assertEquals(urlOf({ PORT: "80" }), "http://localhost");
  assertEquals(urlOf({ CUSTOM_DOMAIN: "proxy.example" }), "https://proxy.example");
  const http = { CUSTOM_DOMAIN: "proxy.example", PUBLIC_SCHEME: "http" };
  assertEquals(urlOf(http), "http://proxy.example:8080");
  const tls = { CUSTOM_DOMAIN: "proxy.example", TLS_CERT: "c", TLS_KEY: "k", PORT: "8443" };
  assertEquals(urlOf(tls), "https://proxy.example:8443");
});

Deno.test("Docker gets a mirror, and permission to do without TLS only where it needs one", () => {
  const of = (instance: typeof plain) => JSON.parse(textOf("docker", instance));
  assertEquals(of(plain), {
    "registry-mirrors": ["http://10.0.0.5:8080"],
    "insecure-registries": ["10.0.0.5:8080"],
  });
  assertEquals(of(local), { "registry-mirrors": ["http://localhost:8080"] });
  assertEquals(of(secure), { "registry-mirrors": ["https://proxy.example"] });
});

Deno.test("containerd gets a hosts.toml for each registry, with the registry itself to fall back on", () => {
  const hosts = (name: string) =>
    parseToml(textOf("containerd", plain, `/etc/containerd/certs.d/${name}/hosts.toml`));
  const host = { "http://10.0.0.5:8080": { capabilities: ["pull", "resolve"] } };
  assertEquals<unknown>(hosts("docker.io"), { server: "https://registry-1.docker.io", host });
  assertEquals<unknown>(hosts("ghcr.io"), { server: "https://ghcr.io", host });
  assertEquals<unknown>(hosts("registry.corp.example_5000_"), {
    server: "http://registry.corp.example:5000",
    host,
  });
  const main: Parsed = parseToml(textOf("containerd", plain, "/etc/containerd/config.toml"));
  for (const plugin of ["io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri"]) {
    assertEquals(main.plugins[plugin].registry.config_path, "/etc/containerd/certs.d");
  }
});

Deno.test("podman gets a mirror per registry whose path says which one is meant", () => {
  const { registry }: Parsed = parseToml(textOf("podman"));
  const mirrors = Object.fromEntries(
    registry.map((one: Parsed) => [one.prefix, one.mirror]),
  );
  assertEquals(mirrors["docker.io"], [{ location: "10.0.0.5:8080/docker.io", insecure: true }]);
  assertEquals(mirrors["registry.corp.example:5000"], [
    { location: "10.0.0.5:8080/corp", insecure: true },
  ]);
  const { registry: overTls }: Parsed = parseToml(textOf("podman", secure));
  assertEquals(overTls[0].mirror, [{ location: "proxy.example/docker.io" }]);
});

Deno.test("BuildKit gets mirrors, and is told where there is no TLS", () => {
  const { registry }: Parsed = parseToml(textOf("buildkit"));
  assertEquals(registry["ghcr.io"], { mirrors: ["10.0.0.5:8080/ghcr.io"] });
  assertEquals(registry["10.0.0.5:8080"], { http: true });
  const { registry: overTls }: Parsed = parseToml(textOf("buildkit", secure));
  assertEquals(overTls["proxy.example"], undefined);
});

Deno.test("a builder in a container shares the network of an instance on loopback", () => {
  assertMatch(clientConfig("buildkit", local).steps[0]!, /--driver-opt network=host/);
  assert(!clientConfig("buildkit", secure).steps[0]!.includes("network=host"));
});

Deno.test("Kubernetes gets a DaemonSet that writes the same hosts.toml files as containerd alone has", () => {
  const [map, set]: Parsed[] = parseAll(textOf("kubernetes"));
  assertEquals([map.kind, set.kind], ["ConfigMap", "DaemonSet"]);
  const alone = clientConfig("containerd", plain).files
    .map(({ path, text }) => [/certs\.d\/([^/]+)\/hosts\.toml$/.exec(path)?.[1], text] as const)
    .filter(([name]) => name !== undefined);
  assertEquals(
    Object.entries<string>(map.data).map(([name, text]) => [name, parseToml(text)]),
    alone.map(([name, text]) => [name, parseToml(text)]),
  );
  // The keys of a ConfigMap: no colon, no slash.
  for (const key of Object.keys(map.data)) assertMatch(key, /^[-._a-zA-Z0-9]+$/);
  const [container] = set.spec.template.spec.containers;
  const mounts = container.volumeMounts.map(({ name }: Parsed) => name).sort();
  const volumes = set.spec.template.spec.volumes.map(({ name }: Parsed) => name).sort();
  assertEquals(mounts, volumes);
  assertEquals(set.spec.template.metadata.labels, set.spec.selector.matchLabels);
});

Deno.test("where an override leads is the proxy's business: clients go on by the registry's own name", () => {
  const overridden = instanceOf(
    parseConfig({ UPSTREAM_DOCKER: "http://10.0.0.9:5000", UPSTREAM_GHCR: "http://10.0.0.9:5000" }),
    new URL("http://10.0.0.5:8080"),
  );
  const { registry }: Parsed = parseToml(textOf("podman", overridden));
  const ghcr = registry.find(({ prefix }: Parsed) => prefix === "ghcr.io");
  assertEquals(ghcr, {
    prefix: "ghcr.io",
    location: "ghcr.io",
    mirror: [{ location: "10.0.0.5:8080/ghcr.io", insecure: true }],
  });
  const path = "/etc/containerd/certs.d/ghcr.io/hosts.toml";
  assertEquals(parseToml(textOf("containerd", overridden, path))["server"], "https://ghcr.io");
});

Deno.test("an upstream under two names is configured once", () => {
  const hubs = clientConfig("podman", plain).files[0]!.text.match(/prefix = ".*docker\.io"/g);
  assertEquals(hubs, [`prefix = "docker.io"`]);
});

for (
  const [image, expected] of [
    ["nginx", "10.0.0.5:8080/library/nginx:latest"],
    ["ghcr.io/x/y:1", "10.0.0.5:8080/ghcr.io/x/y:1"],
    ["registry.corp.example:5000/a/b:2", "10.0.0.5:8080/corp/a/b:2"],
    // An account of Docker Hub's that is called as another registry is.
    ["docker.io/quay/x", "10.0.0.5:8080/docker.io/quay/x:latest"],
  ] as const
) {
  Deno.test(`${image} is pulled as ${expected}`, () => {
    assertEquals(throughProxy(image, plain), expected);
  });
}

Deno.test("an image of an unknown registry is rejected", () => {
  assertThrows(() => throughProxy("no.such.host/x", plain), OciError);
});

Deno.test("an instance's URL is read back the same, and no text makes it throw anything but a RangeError", () => {
  const text = fc.oneof(fc.string({ unit: "binary" }), fc.webUrl(), fc.domain(), fc.ipV4());
  fc.assert(fc.property(text, (text) => {
    try {
      const url = parseInstanceUrl(text);
      assertEquals([url.pathname, url.search, url.hash, url.username], ["/", "", "", ""]);
      assertEquals(parseInstanceUrl(url.href).href, url.href);
    } catch (error) {
      assert(error instanceof RangeError, `${error}`);
    }
  }));
});
