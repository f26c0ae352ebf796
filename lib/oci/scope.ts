/**
 * Token scopes: `repository:owner/img:pull,push`.
 *
 * Source: distribution, "Token Scope Documentation".
 *
 * @module
 */

/** A parsed scope. */
export interface Scope {
  /** The resource type: `repository`, `registry`. */
  readonly type: string;
  /** The class: `plugin` in `repository(plugin):…`. */
  readonly class?: string;
  /** The resource name. May contain a colon: `localhost:5000/a/b`. */
  readonly name: string;
  /** The actions: `pull`, `push`, `*`. May be empty. */
  readonly actions: readonly string[];
}

const SCOPE = /^([a-z0-9]+)(?:\(([a-z0-9]+)\))?:([^\s]+):([^\s:]*)$/;

/** Parses `text`. Returns undefined if it is not a resource scope (`openid`, `aws`). */
export function parseScope(text: string): Scope | undefined {
  const [, type, kind, name, actions] = SCOPE.exec(text) ?? [];
  if (type === undefined || name === undefined || actions === undefined) return undefined;
  return {
    type,
    ...kind !== undefined && { class: kind },
    name,
    actions: actions.split(",").filter(Boolean),
  };
}

/** Formats `scope`. The inverse of {@linkcode parseScope}. */
export function formatScope(scope: Scope): string {
  const kind = scope.class === undefined ? "" : `(${scope.class})`;
  return `${scope.type}${kind}:${scope.name}:${scope.actions.join(",")}`;
}

/**
 * Returns the single scopes of `values`, each once and in order, and no more than `most`: one `scope`
 * parameter may hold several, separated by spaces.
 */
export function splitScopes(values: readonly string[], most = Infinity): string[] {
  const scopes = new Set<string>();
  for (const value of values) {
    for (const [scope] of value.matchAll(/\S+/g)) {
      scopes.add(scope);
      if (scopes.size >= most) return [...scopes];
    }
  }
  return [...scopes];
}

/** Returns the scope for pulling `repository`. */
export function pullScope(repository: string): string {
  return `repository:${repository}:pull`;
}
