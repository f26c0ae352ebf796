/**
 * Configuration that makes a client pull through one instance of this proxy.
 *
 * @module
 */
import type { Config } from "../config/config.ts";
import { clientName, resolveImage } from "../oci/image_name.ts";
import type { Registry } from "../oci/registry.ts";
import { publicScheme } from "../transforms/auth.ts";
import { registryNamed, type RouteTable, stripRegistry } from "../oci/registry_table.ts";

/** The clients there is configuration for. */
export const CLIENT_KINDS = ["docker", "containerd", "podman", "buildkit", "kubernetes"] as const;

/** A client there is configuration for. */
export type ClientKind = typeof CLIENT_KINDS[number];

/** An instance as its clients see it. */
export interface Instance {
  /** Where clients reach it; a host on which the path says the registry. Scheme, host and port only. */
  readonly url: URL;
  readonly registries: readonly Registry[];
  readonly customDomain: string;
}

/** One file of a client's configuration. */
export interface ConfigFile {
  /** Where the client reads it from, absolute; a bare name for what is handed to a command. */
  readonly path: string;
  readonly language: "json" | "toml" | "yaml";
  readonly text: string;
}

/** All that makes a client use an instance. */
export interface ClientConfig {
  readonly kind: ClientKind;
  /** To be written, or merged into what is there. */
  readonly files: readonly ConfigFile[];
  /** Shell commands that put it in force, in order; may be none. */
  readonly steps: readonly string[];
}

/**
 * The instance that `config` describes. Its URL is `url` where given, else what follows from the settings:
 * `http://localhost:8080`, or https without a port for a domain, which has a TLS proxy in front.
 */
export function instanceOf(config: Config, url?: URL): Instance {
  const { customDomain, registries } = config;
  return { url: url ? new URL("/", url) : ownUrl(config), registries, customDomain };
}

/**
 * The address of an instance in `text`, http where it does not say; without a path, for Docker's mirrors have
 * none. Throws a `RangeError` that says what is accepted.
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

/** The configuration of one kind of client for `instance`. */
export function clientConfig(kind: ClientKind, instance: Instance): ClientConfig {
  return { kind, ...WRITERS[kind](instance) };
}

/**
 * The name that pulls `image` through `instance` on any client, without configuration:
 * `ghcr.io/x/y:1` → `localhost:8080/ghcr.io/x/y:1`. Throws an `OciError` for what is no image of a
 * configured registry.
 */
export function throughProxy(image: string, instance: Instance): string {
  const table: RouteTable = instance;
  const { registry, repository, reference } = resolveImage(image, table);
  const prefix = pathName(registry);
  // Docker Hub needs no prefix, unless the name alone would lead to another registry.
  const isPlain = prefix === "docker.io" && stripRegistry(repository, table) === undefined;
  const separator = reference.includes(":") ? "@" : ":";
  return `${instance.url.host}/${isPlain ? "" : `${prefix}/`}${repository}${separator}${reference}`;
}

/** The component that means the registry in a path: a port cannot stand in a repository's name. */
function pathName(registry: Registry): string {
  const name = clientName(registry);
  return name.includes(":") ? registry.name : name;
}

/** One registry per name that clients know; several of the proxy's names may lead to one upstream. */
function registriesOf(instance: Instance): Registry[] {
  // What clients call docker-staging leads to docker as well.
  return instance.registries.filter((registry) =>
    registryNamed(instance, clientName(registry)) === registry
  );
}

/** The registry's own address, for when the proxy is away: where the name leads without it. */
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

/** A TOML basic string: JSON's escapes are among TOML's. */
const quote = JSON.stringify;

type Writer = (instance: Instance) => Omit<ClientConfig, "kind">;

/** The engine: its mirrors serve Docker Hub only, and it takes loopback without TLS by itself. */
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

/** One registry's hosts.toml. containerd names the registry itself, with `?ns=`. */
function hostsToml(registry: Registry, url: URL): string {
  return [
    `server = ${quote(originOf(registry))}`,
    "",
    `[host.${quote(url.origin)}]`,
    `  capabilities = ["pull", "resolve"]`,
    "",
  ].join("\n");
}

/** The folder that containerd looks for; `host_port_` stands for `host:port` on every system. */
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
  // A builder in a container of its own has another loopback.
  const network = isLoopback(url) ? " --driver-opt network=host" : "";
  return {
    files: [{ path: "/etc/buildkit/buildkitd.toml", language: "toml", text: lines.join("\n") }],
    steps: [
      `docker buildx create --use --name proxied${network} --buildkitd-config /etc/buildkit/buildkitd.toml`,
    ],
  };
};

/** `text` as a YAML literal block, indented by `spaces`. */
function block(text: string, spaces: number): string {
  const indent = " ".repeat(spaces);
  return text.trimEnd().split("\n").map((line) => line && indent + line).join("\n");
}

/**
 * For clusters: a DaemonSet that keeps each node's hosts.toml files. Nodes read them at every pull; only
 * their `config_path` needs a restart, once. For k3s, which has a file of its own, that file as a comment:
 * what is printed can be piped to `kubectl apply`.
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
