"""vLLM's arguments as the fake reads them."""


def read_arguments(argv: list[str]) -> dict[str, str]:
    """`--name value`, `--name=value` and `--switch` alike; unknown ones are kept and ignored."""
    found, index = {}, 0
    while index < len(argv):
        name, equals, value = argv[index].removeprefix("--").partition("=")
        index += 1
        if not equals and index < len(argv) and not argv[index].startswith("--"):
            value, index = argv[index], index + 1
        found[name] = value
    return found


def served_names(argv: list[str]) -> list[str]:
    """Every name of --served-model-name and --lora-modules: anything else is 404, as vLLM says it."""
    names, flag = [], ""
    for word in argv:
        if word.startswith("--"):
            flag = word
        elif flag == "--served-model-name":
            names.append(word)
        elif flag == "--lora-modules" and "--enable-lora" in argv:
            names.append(word.partition("=")[0])
    return names
