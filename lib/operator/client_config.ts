/**
 * Generates configuration that makes a client pull through an instance of this proxy.
 *
 * @module
 */
import type { Config } from "../config/config.ts";
import { clientName, resolveImage } from "../oci/image_name.ts";
import type { Registry } from "../oci/registry.ts";
import { publicScheme } from "../transforms/auth.ts";
import { registryNamed, type RouteTable, stripRegistry } from "../oci/registry_table.ts";

/** The clients with generated configuration. */
export const CLIENT_KINDS = ["docker", "containerd", "podman", "buildkit", "kubernetes"] as const;

/** A client there is configuration for. */
export type ClientKind = typeof CLIENT_KINDS[number];

/** An instance as its clients see it. */
export interface Instance {
  /** The URL that clients use: scheme, host and port only. On this host the path names the registry. */
  readonly url: URL;
  readonly registries: readonly Registry[];
  readonly customDomain: string;
}

/** One file of a client's configuration. */
export interface ConfigFile {
  /** The absolute path of the file, or a bare name for a file passed to a command. */
  readonly path: string;
  readonly language: "json" | "toml" | "yaml";
  readonly text: string;
}

/** The configuration of one client. */
export interface ClientConfig {
  readonly kind: ClientKind;
  /** Files to write, or to merge into existing ones. */
  readonly files: readonly ConfigFile[];
  /** Shell commands that apply the configuration, in order. May be empty. */
  readonly steps: readonly string[];
}

/**
 * Returns the instance that `config` describes. Its URL is `url` if given. The default follows from the
 * settings: `http://localhost:8080`, or https without a port for a domain, which has a TLS proxy in front.
 */
export function instanceOf(config: Config, url?: URL): Instance {
  const { customDomain, registries } = config;
  return { url: url ? new URL("/", url) : ownUrl(config), registries, customDomain };
}

/**
 * Parses the address of an instance. The scheme defaults to http. A path is rejected, because Docker's
 * mirrors support none. Throws a `RangeError` that says what is accepted.
 */
export function parseInstanceUrl(text: string): URL {
  const url = URL.parse(text.includes("://") ? text : `http://${text}`);
  const isPlain = url && /^https?:$/.test(url.protocol) && url.pathname === "/" &&
    !url.search && !url.hash && !url.username;
  if (!isPlain) throw new RangeError(`Expected a URL such as http://10.0.0.5:8080: ${text}`);
  return url;
}

function ownUrl({ customDomain, listen, publicScheme: setting }: Config): URL {
  const listener = listen.tls ? "https" : "http";
  const scheme = publicScheme({
    listener,
    host: customDomain,
    setting,
    trustProxy: false,
    forwardedProto: null,
  });
  const url = new URL(`${scheme}://${customDomain}/`);
  if (scheme === listener) url.port = String(listen.port);
  return url;
}

/** Returns the configuration of one kind of client for `instance`. */
export function clientConfig(kind: ClientKind, instance: Instance): ClientConfig {
  return { kind, ...WRITERS[kind](instance) };
}

/**
 * Returns the name that pulls `image` through `instance` on any client without configuration:
 * `ghcr.io/x/y:1` → `localhost:8080/ghcr.io/x/y:1`. Throws an `OciError` if `image` names no image of a
 * configured registry.
 */
export function throughProxy(image: string, instance: Instance): string {
  const table: RouteTable = instance;
  const { registry, repository, reference } = resolveImage(image, table);
  const prefix = pathName(registry);
  // Docker Hub needs no prefix, unless the name alone would match another registry.
  const isPlain = prefix === "docker.io" && stripRegistry(repository, table) === undefined;
  const separator = reference.includes(":") ? "@" : ":";
  return `${instance.url.host}/${isPlain ? "" : `${prefix}/`}${repository}${separator}${reference}`;
}

/** Returns the path component that names the registry. Repository names cannot contain a port. */
function pathName(registry: Registry): string {
  const name = clientName(registry);
  return name.includes(":") ? registry.name : name;
}

/** Returns one registry per client-facing name. Several of the proxy's names may share an upstream. */
function registriesOf(instance: Instance): Registry[] {
  // Clients reach the upstream of docker-staging as docker.io too.
  return instance.registries.filter((registry) =>
    registryNamed(instance, clientName(registry)) === registry
  );
}

/** Returns the registry's own URL, which clients fall back to while the proxy is down. */
function originOf(registry: Registry): string {
  const name = clientName(registry);
  if (name === "docker.io") return "https://registry-1.docker.io";
  return name === registry.url.host ? registry.url.origin : `https://${name}`;
}

function isPlainHttp(registry: Registry): boolean {
  return originOf(registry).startsWith("http:");
}

function isLoopback({ hostname }: URL): boolean {
  return /^(127\.|\[::1\]$)/.test(hostname) || /(^|\.)localhost$/.test(hostname);
}

/** Returns a TOML basic string. JSON's escapes are valid in TOML. */
const quote = JSON.stringify;

type Writer = (instance: Instance) => Omit<ClientConfig, "kind">;

/** Configures Docker Engine. Its mirrors only serve Docker Hub, and it accepts loopback without TLS. */
const docker: Writer = ({ url }) => {
  const isInsecure = url.protocol === "http:" && !isLoopback(url);
  const settings = {
    "registry-mirrors": [url.origin],
    ...isInsecure && { "insecure-registries": [url.host] },
  };
  const text = JSON.stringify(settings, null, 2) + "\n";
  return {
    files: [{ path: "/etc/docker/daemon.json", language: "json", text }],
    steps: ["sudo systemctl reload docker"],
  };
};

/** Returns one registry's hosts.toml. containerd names the registry in `?ns=`. */
function hostsToml(registry: Registry, url: URL): string {
  return [
    `server = ${quote(originOf(registry))}`,
    "",
    `[host.${quote(url.origin)}]`,
    `  capabilities = ["pull", "resolve"]`,
    "",
  ].join("\n");
}

/** Returns the folder that containerd looks for. `host_port_` stands for `host:port` on every system. */
function hostsFolder(registry: Registry): string {
  return clientName(registry).replace(/:(\d+)$/, "_$1_");
}

const CERTS = "/etc/containerd/certs.d";

const containerd: Writer = (instance) => {
  const plugins = [
    "# containerd 2.x",
    `[plugins."io.containerd.cri.v1.images".registry]`,
    `  config_path = ${quote(CERTS)}`,
    "",
    "# containerd 1.x",
    `[plugins."io.containerd.grpc.v1.cri".registry]`,
    `  config_path = ${quote(CERTS)}`,
    "",
  ].join("\n");
  return {
    files: [
      ...registriesOf(instance).map((registry) => ({
        path: `${CERTS}/${hostsFolder(registry)}/hosts.toml`,
        language: "toml" as const,
        text: hostsToml(registry, instance.url),
      })),
      { path: "/etc/containerd/config.toml", language: "toml", text: plugins },
    ],
    steps: ["sudo systemctl restart containerd"],
  };
};

const podman: Writer = (instance) => {
  const { url } = instance;
  const lines = registriesOf(instance).flatMap((registry) => [
    "[[registry]]",
    `prefix = ${quote(clientName(registry))}`,
    `location = ${quote(clientName(registry))}`,
    ...isPlainHttp(registry) ? ["insecure = true"] : [],
    "",
    "[[registry.mirror]]",
    `location = ${quote(`${url.host}/${pathName(registry)}`)}`,
    ...url.protocol === "http:" ? ["insecure = true"] : [],
    "",
  ]);
  const path = "/etc/containers/registries.conf.d/50-deno-docker-proxy.conf";
  return { files: [{ path, language: "toml", text: lines.join("\n") }], steps: [] };
};

const buildkit: Writer = (instance) => {
  const { url } = instance;
  const lines = registriesOf(instance).flatMap((registry) => [
    `[registry.${quote(clientName(registry))}]`,
    `  mirrors = [${quote(`${url.host}/${pathName(registry)}`)}]`,
    ...isPlainHttp(registry) ? ["  http = true"] : [],
    "",
  ]);
  if (url.protocol === "http:") lines.push(`[registry.${quote(url.host)}]`, "  http = true", "");
  // A builder in its own container has a different loopback interface.
  const network = isLoopback(url) ? " --driver-opt network=host" : "";
  return {
    files: [{ path: "/etc/buildkit/buildkitd.toml", language: "toml", text: lines.join("\n") }],
    steps: [
      `docker buildx create --use --name proxied${network} --buildkitd-config /etc/buildkit/buildkitd.toml`,
    ],
  };
};

/** Returns `text` as a YAML literal block, indented by `spaces`. */
function block(text: string, spaces: number): string {
  const indent = " ".repeat(spaces);
  return text.trimEnd().split("\n").map((line) => line && indent + line).join("\n");
}

/**
 * Configures clusters with a DaemonSet that writes each node's hosts.toml files. Nodes read them at every
 * pull. Only `config_path` requires a restart, once. The file that k3s uses instead is added as a comment,
 * so that the output can be piped to `kubectl apply`.
 */
const kubernetes: Writer = (instance) => {
  const registries = registriesOf(instance);
  const hosts = registries.map((registry) =>
    `  ${quote(hostsFolder(registry))}: |\n${block(hostsToml(registry, instance.url), 4)}`
  );
  const k3s = registries.map((registry) =>
    `  ${quote(clientName(registry))}:\n    endpoint:\n      - ${quote(instance.url.origin)}`
  );
  const comment = [
    `Each node's containerd must have config_path = "${CERTS}" in its config.toml.`,
    "k3s and RKE2 do without this DaemonSet; there it is /etc/rancher/k3s/registries.yaml, with:",
    ...`mirrors:\n${k3s.join("\n")}`.split("\n"),
  ];
  const text = comment.map((line) => `# ${line}\n`).join("") + nodesYaml(hosts.join("\n"));
  return {
    files: [{ path: "containerd-hosts.yaml", language: "yaml", text }],
    steps: ["kubectl apply -f containerd-hosts.yaml"],
  };
};

function nodesYaml(hosts: string): string {
  return `apiVersion: v1
kind: ConfigMap
metadata:
  name: containerd-hosts
  namespace: kube-system
data:
${hosts}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: containerd-hosts
  namespace: kube-system
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: containerd-hosts
  template:
    metadata:
      labels:
        app.kubernetes.io/name: containerd-hosts
    spec:
      automountServiceAccountToken: false
      tolerations:
        - operator: Exists
      containers:
        - name: write
          image: docker.io/library/busybox:stable
          command:
            - sh
            - -c
            - |
              trap 'exit 0' TERM
              while true; do
                for file in /config/*; do
                  folder="/certs.d/\${file##*/}"
                  mkdir -p "$folder"
                  cmp -s "$file" "$folder/hosts.toml" || cp "$file" "$folder/hosts.toml"
                done
                sleep 60 & wait $!
              done
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          resources:
            requests: { cpu: 1m, memory: 8Mi }
            limits: { memory: 32Mi }
          volumeMounts:
            - { name: config, mountPath: /config, readOnly: true }
            - { name: certs, mountPath: /certs.d }
      volumes:
        - name: config
          configMap: { name: containerd-hosts }
        - name: certs
          hostPath: { path: ${CERTS}, type: DirectoryOrCreate }
`;
}

const WRITERS: Readonly<Record<ClientKind, Writer>> = {
  docker,
  containerd,
  podman,
  buildkit,
  kubernetes,
};
