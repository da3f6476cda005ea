// These packages ship no types; ESLint reads what they export.
declare module "eslint-plugin-security" {
  const plugin: { rules: Record<string, import("eslint").Rule.RuleModule> };
  export default plugin;
}
declare module "eslint-plugin-no-unsanitized/lib/rules/method.js" {
  const rule: import("eslint").Rule.RuleModule;
  export default rule;
}
declare module "eslint-plugin-no-unsanitized/lib/rules/property.js" {
  const rule: import("eslint").Rule.RuleModule;
  export default rule;
}
