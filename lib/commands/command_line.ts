/**
 * Parses the command line.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { CLIENT_KINDS, type ClientKind, parseInstanceUrl } from "../operator/client_config.ts";
import { suggest } from "../util/suggest.ts";
import { parsePlatforms, type Platforms } from "../oci/platform.ts";
import { VERSION } from "../util/version.ts";

/** How many arguments a command takes, and its flags besides the common ones. */
interface Shape {
  readonly least?: number;
  /** @default {0} */
  readonly most?: number;
  readonly flags?: readonly ("json" | "platform" | "url")[];
  /**
   * Whether it works on the cache, which only one process can open. A running instance then carries it out.
   *
   * @default {false}
   */
  readonly usesCache?: boolean;
}

const SHAPES = {
  serve: {},
  health: {},
  config: { most: 1, flags: ["json", "url"] },
  warm: { least: 1, most: Infinity, flags: ["json", "platform"], usesCache: true },
  ls: { most: Infinity, flags: ["json"], usesCache: true },
  rm: { least: 1, most: Infinity, flags: ["json"], usesCache: true },
  stats: { flags: ["json"], usesCache: true },
  verify: { flags: ["json"], usesCache: true },
  version: {},
  help: {},
} as const satisfies Record<string, Shape>;

/** The name of a command. */
export type Command = keyof typeof SHAPES;

/** The names of all commands. */
export const COMMANDS = Object.keys(SHAPES) as readonly Command[];

/** The commands that a running instance carries out, if there is one. */
export const CACHE_COMMANDS: readonly Command[] = COMMANDS.filter((name) =>
  (SHAPES[name] as Shape).usesCache
);

/** The type of each flag's value. */
export const FLAGS: Readonly<
  Record<string, { readonly type: "string" | "boolean"; readonly short?: string }>
> = {
  "host": { type: "string" },
  "port": { type: "string" },
  "env-file": { type: "string" },
  "platform": { type: "string" },
  "url": { type: "string" },
  "json": { type: "boolean" },
  "help": { type: "boolean", short: "h" },
  "version": { type: "boolean", short: "v" },
};
/** Flags that only some commands accept. */
const OWN = ["json", "platform", "url"];

/** The text that `help` prints. */
export const HELP = `deno-docker-proxy ${VERSION}: a caching proxy for container registries

Usage: deno-docker-proxy [command] [flags]

Commands:
  serve              answer clients (the default)
  warm IMAGE...      download images into the cache, with everything they need
  ls [PATTERN...]    list the cached images
  rm IMAGE...        remove images: one tag, or all tags of the repository
  stats              print the size and the hit ratio of the cache
  verify             hash everything that is stored
  config             print the settings in force, with secrets masked
  config CLIENT      print a client's configuration:
                     ${CLIENT_KINDS.join(", ")}
  health             check a running instance on this host; exit code 0 or 1
  version            print the version
  help               print this

Flags:
  --platform LIST    platforms for warm: linux/amd64,linux/arm64 (default: all)
  --url URL          where clients reach this proxy, for config CLIENT
  --json             print JSON
  --host ADDRESS     listen there instead of at HOST
  --port PORT        listen there instead of at PORT
  --env-file FILE    read settings from FILE; the environment wins
  -h, --help         print this
  -v, --version      print the version

${CACHE_COMMANDS.slice(0, -1).join(", ")} and ${
  CACHE_COMMANDS.at(-1)
} ask the running instance at ADMIN_ADDR. If none runs, they open the cache
themselves.

Settings are environment variables: see docs/settings.md or .env.example.
`;

/** A parsed command line. */
export interface CommandLine {
  readonly command: Command;
  /** The arguments: images, patterns. */
  readonly args: readonly string[];
  readonly flags: {
    readonly host?: string;
    readonly port?: string;
    readonly "env-file"?: string;
    readonly json: boolean;
    readonly platforms?: Platforms;
    readonly url?: URL;
  };
  /** The client of `config CLIENT`. */
  readonly client?: ClientKind;
  /** Problems of the command line. They are reported together with those of the settings. */
  readonly problems: readonly string[];
}

/** Parses the program's arguments. */
export function readCommandLine(args: readonly string[]): CommandLine {
  // docker-proxy's spelling. Existing HEALTHCHECK lines still use it.
  const known = args.map((arg) => /^--?health-check$/.test(arg) ? "health" : arg);
  const { values, positionals, tokens } = parseArgs({
    args: known,
    options: FLAGS,
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const problems: string[] = [];
  const [word = "serve", ...rest] = positionals;
  const command = isCommand(word) ? word : undefined;
  const shape: Shape = command ? SHAPES[command] : { most: Infinity };
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const { name, rawName, value } = token;
    const flag = Object.hasOwn(FLAGS, name) ? FLAGS[name] : undefined;
    const isOthers = OWN.includes(name) && command && !shape.flags?.some((own) => own === name);
    if (!flag) {
      const flags = Object.keys(FLAGS).map((known) => `--${known}`);
      problems.push(`${rawName}: Unknown flag${suggest(rawName, flags)}`);
    } else if (isOthers) problems.push(`${rawName}: Unknown flag for ${word}`);
    else if (flag.type === "string" && !value) problems.push(`${rawName}: Requires a value`);
    else if (flag.type === "boolean" && value !== undefined) {
      problems.push(`${rawName}: Does not take a value`);
    }
  }
  if (!command) {
    problems.push(`${word}: Unknown command${suggest(word, Object.keys(SHAPES))}`);
  }
  if (rest.length < (shape.least ?? 0)) problems.push(`${word}: Requires the name of an image`);
  for (const extra of rest.slice(shape.most ?? 0)) problems.push(`${extra}: Unexpected argument`);
  const asked = values["help"] ? "help" : values["version"] ? "version" : command;
  // A flag without its value is `true` here, and already among the problems.
  const text = (name: string) => typeof values[name] === "string" ? values[name] : undefined;
  const attempt = <T>(name: string, read: (text: string) => T): T | undefined => {
    const value = text(name);
    try {
      return value ? read(value) : undefined;
    } catch (error) {
      problems.push(`--${name}: ${(error as Error).message}`);
    }
  };
  const flags = {
    host: text("host"),
    port: text("port"),
    "env-file": text("env-file"),
    json: values["json"] === true,
    platforms: attempt("platform", parsePlatforms),
    url: attempt("url", parseInstanceUrl),
  };
  const isClient = command === "config" && rest.length > 0;
  const client = isClient ? CLIENT_KINDS.find((kind) => kind === rest[0]) : undefined;
  if (isClient && !client) {
    problems.push(
      `${rest[0]}: Unknown client, expected ${CLIENT_KINDS.join(", ")}${
        suggest(rest[0] ?? "", CLIENT_KINDS)
      }`,
    );
  }
  return { command: asked ?? "help", args: rest, flags, client, problems };
}

function isCommand(word: string): word is Command {
  return Object.hasOwn(SHAPES, word);
}
