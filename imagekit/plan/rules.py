"""BuildKit's build checks: what each is called and what it says.

Names, texts and links are BuildKit's, since people and programs look them up by these. All are
warnings; those that are experimental have to be asked for.
"""

from typing import Final

from attrs import field, frozen

_DOCS: Final = "https://docs.docker.com/go/dockerfile/rule/"


@frozen(kw_only=True)
class Rule:
    """One check.

    Attributes:
        name: as `# check=skip=` names it.
        description: what it is about.
        message: what it says of one place, with a `{}` for each detail.
        page: its page in the documentation; empty if there is none.
        experimental: it runs only if `experimental=` asks for it.
    """

    name: str
    description: str
    message: str = field(repr=False)
    page: str = ""
    experimental: bool = False

    @property
    def url(self) -> str:
        """Where it is documented, or nothing."""
        return f"{_DOCS}{self.page}/" if self.page else ""


STAGE_NAME_CASING: Final = Rule(
    name="StageNameCasing",
    description="Stage names should be lowercase",
    message="Stage name '{}' should be lowercase",
    page="stage-name-casing",
)
FROM_AS_CASING: Final = Rule(
    name="FromAsCasing",
    description="The 'as' keyword should match the case of the 'from' keyword",
    message="'{}' and '{}' keywords' casing do not match",
    page="from-as-casing",
)
NO_EMPTY_CONTINUATION: Final = Rule(
    name="NoEmptyContinuation",
    description="Empty continuation lines will become errors in a future release",
    message="Empty continuation line",
    page="no-empty-continuation",
)
CONSISTENT_INSTRUCTION_CASING: Final = Rule(
    name="ConsistentInstructionCasing",
    description=(
        "All commands within the Dockerfile should use the same casing (either upper or lower)"
    ),
    message="Command '{}' should match the case of the command majority ({})",
    page="consistent-instruction-casing",
)
DUPLICATE_STAGE_NAME: Final = Rule(
    name="DuplicateStageName",
    description="Stage names should be unique",
    message="Duplicate stage name {}, stage names should be unique",
    page="duplicate-stage-name",
)
RESERVED_STAGE_NAME: Final = Rule(
    name="ReservedStageName",
    description="Reserved words should not be used as stage names",
    message="Stage name should not use the same name as reserved stage {}",
    page="reserved-stage-name",
)
JSON_ARGS_RECOMMENDED: Final = Rule(
    name="JSONArgsRecommended",
    description=(
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to"
        " OS signals"
    ),
    message=(
        "JSON arguments recommended for {} to prevent unintended behavior related to OS signals"
    ),
    page="json-args-recommended",
)
MAINTAINER_DEPRECATED: Final = Rule(
    name="MaintainerDeprecated",
    description=(
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
    ),
    message="Maintainer instruction is deprecated in favor of using label",
    page="maintainer-deprecated",
)
UNDEFINED_ARG_IN_FROM: Final = Rule(
    name="UndefinedArgInFrom",
    description="FROM command must use declared ARGs",
    message="FROM argument '{}' is not declared{}",
    page="undefined-arg-in-from",
)
WORKDIR_RELATIVE_PATH: Final = Rule(
    name="WorkdirRelativePath",
    description=(
        "Relative workdir without an absolute workdir declared within the build can have"
        " unexpected results if the base image changes"
    ),
    message="Relative workdir {} can have unexpected results if the base image changes",
    page="workdir-relative-path",
)
UNDEFINED_VAR: Final = Rule(
    name="UndefinedVar",
    description="Variables should be defined before their use",
    message="Usage of undefined variable '${}'{}",
    page="undefined-var",
)
MULTIPLE_INSTRUCTIONS_DISALLOWED: Final = Rule(
    name="MultipleInstructionsDisallowed",
    description="Multiple instructions of the same type should not be used in the same stage",
    message=(
        "Multiple {} instructions should not be used in the same stage because only the last one"
        " will be used"
    ),
    page="multiple-instructions-disallowed",
)
LEGACY_KEY_VALUE_FORMAT: Final = Rule(
    name="LegacyKeyValueFormat",
    description="Legacy key/value format with whitespace separator should not be used",
    message='"{0} key=value" should be used instead of legacy "{0} key value" format',
    page="legacy-key-value-format",
)
INVALID_BASE_IMAGE_PLATFORM: Final = Rule(
    name="InvalidBaseImagePlatform",
    description="Base image platform does not match expected target platform",
    message="Base image {} was pulled with platform {}, expected {} for current build",
)
REDUNDANT_TARGET_PLATFORM: Final = Rule(
    name="RedundantTargetPlatform",
    description=(
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the"
        " default behavior"
    ),
    message=(
        "Setting platform to predefined {} in FROM is redundant as this is the default behavior"
    ),
    page="redundant-target-platform",
)
SECRETS_USED_IN_ARG_OR_ENV: Final = Rule(
    name="SecretsUsedInArgOrEnv",
    description="Sensitive data should not be used in the ARG or ENV commands",
    message="Do not use ARG or ENV instructions for sensitive data ({} {})",
    page="secrets-used-in-arg-or-env",
)
INVALID_DEFAULT_ARG_IN_FROM: Final = Rule(
    name="InvalidDefaultArgInFrom",
    description="Default value for global ARG results in an empty or invalid base image name",
    message="Default value for ARG {} results in empty or invalid base image name",
    page="invalid-default-arg-in-from",
)
FROM_PLATFORM_FLAG_CONST_DISALLOWED: Final = Rule(
    name="FromPlatformFlagConstDisallowed",
    description="FROM --platform flag should not use a constant value",
    message="FROM --platform flag should not use constant value {}",
    page="from-platform-flag-const-disallowed",
)
COPY_IGNORED_FILE: Final = Rule(
    name="CopyIgnoredFile",
    description="Attempting to Copy file that is excluded by .dockerignore",
    message="Attempting to {} file {} that is excluded by .dockerignore",
    page="copy-ignored-file",
)
INVALID_DEFINITION_DESCRIPTION: Final = Rule(
    name="InvalidDefinitionDescription",
    description=(
        "Comment for build stage or argument should follow the format: `# <arg/stage name>"
        " <description>`. If this is not intended to be a description comment, add an empty line"
        " or comment between the instruction and the comment."
    ),
    message="Comment for {} should follow the format: `# {} <description>`",
    page="invalid-definition-description",
    experimental=True,
)
EXPOSE_PROTO_CASING: Final = Rule(
    name="ExposeProtoCasing",
    description="Protocol in EXPOSE instruction should be lowercase",
    message="Defined protocol '{}' in EXPOSE instruction should be lowercase",
    page="expose-proto-casing",
)
EXPOSE_INVALID_FORMAT: Final = Rule(
    name="ExposeInvalidFormat",
    description=(
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will"
        " become an error in a future release"
    ),
    message=(
        "EXPOSE instruction should not define an IP address or host-port mapping, found '{}'"
    ),
    page="expose-invalid-format",
)

RULES: Final = tuple(rule for rule in list(vars().values()) if isinstance(rule, Rule))
"""All rules, by when they came to be."""
