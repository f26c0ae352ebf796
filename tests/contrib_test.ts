import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { parse as parseYaml, parseAll } from "@std/yaml";
import { clientConfig, instanceOf } from "../lib/operator/client_config.ts";
import { parseConfig } from "../lib/config/config.ts";
import { must, run } from "./support/process.ts";
import { ROOT } from "./support/proxy_process.ts";
import { which } from "./support/requirements.ts";

const KUBERNETES = join(ROOT, "contrib/kubernetes");
const BASE = join(KUBERNETES, "base");
const OVERLAYS = ["ingress", "node-port"].map((name) => join(KUBERNETES, "overlays", name));

// deno-lint-ignore no-explicit-any
type Parsed = any;

const read = (path: string) => Deno.readTextFileSync(path);
const yaml = (path: string): Parsed => parseYaml(read(path));

/** `NAME=value` lines as settings. */
function settingsOf(lines: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    lines.filter((line) => line && !line.startsWith("#"))
      .map((line) => [line.split("=", 1)[0]!, line.slice(line.indexOf("=") + 1)]),
  );
}

for (const dir of [BASE, ...OVERLAYS]) {
  const name = dir.slice(KUBERNETES.length + 1);
  Deno.test(`the kustomization of ${name} names files that are there, and all of them`, () => {
    const { resources } = yaml(join(dir, "kustomization.yaml"));
    const own = resources.filter((path: string) => !path.startsWith("../../"));
    for (const path of resources) assert(Deno.statSync(join(dir, path)), path);
    const here = [...Deno.readDirSync(dir)].map(({ name }) => name)
      .filter((file) => file.endsWith(".yaml") && file !== "kustomization.yaml");
    // One is applied by itself, to another namespace.
    assertEquals(own.sort(), here.filter((file) => file !== "containerd-hosts.yaml").sort());
  });
}

Deno.test("the StatefulSet is one that Kubernetes' restricted profile lets in", () => {
  const { spec: { template: { spec } } } = yaml(join(BASE, "statefulset.yaml"));
  const [container] = spec.containers;
  assertEquals(spec.securityContext.runAsNonRoot, true);
  assertEquals(spec.securityContext.seccompProfile, { type: "RuntimeDefault" });
  assertEquals(container.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
  });
  assertEquals(spec.automountServiceAccountToken, false);
});

Deno.test("what the manifests say of each other agrees", () => {
  const { spec } = yaml(join(BASE, "statefulset.yaml"));
  const pod = spec.template.spec;
  const [container] = pod.containers;
  const { metadata, spec: { ports: [servicePort] } } = yaml(join(BASE, "service.yaml"));
  const [port] = container.ports;
  assertEquals(spec.serviceName, metadata.name);
  assertEquals(servicePort.targetPort, port.name);
  for (const probe of ["startupProbe", "readinessProbe", "livenessProbe"]) {
    assertEquals(container[probe].httpGet, { path: "/health", port: port.name });
  }
  const policy = yaml(join(BASE, "networkpolicy.yaml"));
  assertEquals(policy.spec.ingress[0].ports[0].port, port.name);
  const volumes = [...pod.volumes, ...spec.volumeClaimTemplates.map((c: Parsed) => c.metadata)];
  assertEquals(
    container.volumeMounts.map((mount: Parsed) => mount.name).sort(),
    volumes.map(({ name }: Parsed) => name).sort(),
  );
  const kustomization = yaml(join(BASE, "kustomization.yaml"));
  assertEquals(container.envFrom[0].configMapRef.name, kustomization.configMapGenerator[0].name);
  assertEquals(container.image, kustomization.images[0].name);
  const { spec: { rules } } = yaml(join(OVERLAYS[0]!, "ingress.yaml"));
  for (const rule of rules) {
    const { service } = rule.http.paths[0].backend;
    assertEquals(service, { name: metadata.name, port: { name: servicePort.name } });
  }
});

Deno.test("the settings in the manifests are right, and what they wait for is no shorter", () => {
  const base = settingsOf(read(join(BASE, "settings.env")).split("\n"));
  const { configMapGenerator: [{ literals }] } = yaml(join(OVERLAYS[0]!, "kustomization.yaml"));
  const { spec: { template: { spec: pod }, volumeClaimTemplates: [claim] } } = yaml(
    join(BASE, "statefulset.yaml"),
  );
  const env = Object.fromEntries(
    pod.containers[0].env.map(({ name, value }: Parsed) => [name, value]),
  );
  for (const settings of [base, { ...base, ...settingsOf(literals) }]) {
    const config = parseConfig({ ...settings, ...env });
    assertEquals(config.listen.port, pod.containers[0].ports[0].containerPort);
    assert(pod.terminationGracePeriodSeconds * 1000 > config.shutdownTimeout);
    const volume = Number(/^(\d+)Gi$/.exec(claim.spec.resources.requests.storage)?.[1]);
    assert(config.cache!.maxSize < volume * 2 ** 30);
  }
});

Deno.test("the file for the nodes is what the program writes", () => {
  const instance = instanceOf(parseConfig({}), new URL("http://127.0.0.1:30500"));
  const { files: [file] } = clientConfig("kubernetes", instance);
  assertEquals(read(join(OVERLAYS[1]!, "containerd-hosts.yaml")), file!.text);
  const patch: Parsed = parseYaml(
    yaml(join(OVERLAYS[1]!, "kustomization.yaml")).patches[0].patch,
  );
  assertEquals(patch.spec.ports[0].nodePort, 30500);
});

/** What of `value` is not in `other`, by path; maps may have more there. */
function* lost(value: Parsed, other: Parsed, path = ""): Iterable<string> {
  if (typeof value !== "object" || value === null) {
    if (JSON.stringify(value) !== JSON.stringify(other)) yield `${path}: ${value} is ${other}`;
    return;
  }
  for (const [key, inner] of Object.entries(value)) {
    if (other === null || typeof other !== "object" || !(key in other)) yield `${path}.${key}`;
    else yield* lost(inner, other[key], `${path}.${key}`);
  }
}

/** A command that decodes a kind by its schema, and so drops or refuses what is not in it. */
const DECODERS: Readonly<Record<string, readonly string[]>> = {
  StatefulSet: ["set", "env", "X=1"],
  DaemonSet: ["set", "env", "X=1"],
  Service: ["set", "selector", "x=1"],
};

Deno.test({
  name: "kubectl builds every kustomization, and knows every field of what comes out",
  ignore: which("kubectl") === undefined,
  async fn() {
    const texts = await Promise.all(
      [BASE, ...OVERLAYS].map((dir) => must("kubectl", ["kustomize", dir])),
    );
    const nodes = read(join(OVERLAYS[1]!, "containerd-hosts.yaml"));
    const documents: Parsed[] = [...texts, nodes].flatMap((text) => parseAll(text));
    assertEquals(documents.length, 4 + 5 + 4 + 2);
    for (const document of documents) {
      const [first, second, change] = DECODERS[document.kind] ?? DECODERS["Service"]!;
      const args = [first!, second!, "--local", "--filename", "-", "--output", "json", change!];
      // Numbers and strings as they are, and nothing else that YAML may read differently.
      const { code, stdout, stderr } = await run("kubectl", args, {
        stdin: JSON.stringify(document),
      });
      const isTyped = document.kind in DECODERS;
      if (!isTyped) assert(!/decode|unmarshal/.test(stderr), `${document.kind}: ${stderr}`);
      else {
        assertEquals([code, stderr], [0, ""]);
        const decoded = JSON.parse(stdout);
        if (document.kind === "Service") document.spec.selector = {};
        assertEquals([...lost(document, decoded)], []);
      }
    }
  },
});

Deno.test({
  name: "systemd finds the unit right, and little that it leaves exposed",
  ignore: which("systemd-analyze") === undefined,
  async fn() {
    const name = "deno-docker-proxy.service";
    const unit = read(join(ROOT, "contrib/systemd", name));
    const dir = await Deno.makeTempDir();
    try {
      // The executable is not installed here.
      const path = join(dir, name);
      await Deno.writeTextFile(path, unit.replace(/^ExecStart=\S+/m, "ExecStart=/bin/true"));
      assertEquals((await must("systemd-analyze", ["verify", path])).trim(), "");
      // 2.0 of 10: what a service without any of it gets is 9.6.
      await must("systemd-analyze", ["security", "--offline=true", "--threshold=20", path]);
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  },
});

Deno.test("the NixOS module hardens the service as the systemd unit does", () => {
  const unit = read(join(ROOT, "contrib/systemd/deno-docker-proxy.service"));
  const section = unit.slice(unit.indexOf("\n[Service]\n"), unit.indexOf("\n[Install]\n"));
  const expected = new Map<string, string>();
  for (const [, key = "", value = ""] of section.matchAll(/^(\w+)=(.*)$/gm)) {
    const known = expected.get(key);
    expected.set(key, known === undefined ? value : `${known} ${value}`);
  }
  const module = read(join(ROOT, "contrib/nixos/module.nix"));
  const service = module.slice(module.indexOf("serviceConfig = {"));
  const found = new Map<string, string>();
  for (const [, key = "", value = ""] of service.matchAll(/^ {8}(\w+) = (.*);$/gm)) {
    const words = [...value.matchAll(/"([^"]*)"/g)].map(([, word]) => word).join(" ");
    found.set(key, value === "true" ? "yes" : words || value);
  }
  // Where these are is NixOS's own business.
  for (const key of ["ExecStart", "EnvironmentFile"]) {
    assert(found.delete(key) && expected.delete(key), key);
  }
  assertEquals(Object.fromEntries(found), Object.fromEntries(expected));
});
