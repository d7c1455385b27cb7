"""The forms of known secrets: one row a provider, and the patterns of `detect-secrets` beside them.

A row is a kind and a regular expression whose group `v1`, `v2`, … (or whole match) is the value to mask. The forms are those that
the providers document or that their tokens show; each is long and regular enough that a match is no accident. Some are
found by what they hold (`_LITERALS`) and looked for only around it, the others only around long runs of letters and
digits (`masking.py`): trying every pattern everywhere would take longer than parsing.
"""

import re
from functools import cache

__all__ = ["ANCHORED", "LITERALS", "detect_secrets_patterns", "form_of", "known_forms", "value_span"]

_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"

# In one pattern the first row that matches names the kind, so a special form stands above one that takes it as well.
_FORMS: tuple[tuple[str, str], ...] = (
    ("aws_access_key", r"(?<![A-Z0-9])(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
    ("aws_secret_key", r"(?i:aws|secret)[^\n]{0,40}?(?<![\w/+])(?P<v1>[A-Za-z0-9/+]{40})(?![\w/+=])"),
    ("gcp_api_key", r"AIza[\w-]{35}"),
    ("gcp_oauth", r"GOCSPX-[\w-]{28}|ya29\.[\w-]{20,}|1//0[\w-]{40,}"),
    ("azure_storage_key", r"(?:AccountKey|SharedAccessKey)=(?P<v2>[A-Za-z0-9+/]{43,86}={1,2})"),
    ("azure_signature", r"[?&]sig=(?P<v3>[A-Za-z0-9%+/]{43,}(?:%3D|=))"),
    ("azure_client_secret", r"[\w~.]{3}\dQ~[\w~.-]{31,34}"),
    ("github_token", r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}"),
    ("gitlab_token", r"gl(?:pat|ptt|dt|rt|ft|soat|cbt|agent|imt|oas)-[\w-]{20,}|GR1348941[\w-]{20}"),
    ("slack_token", r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{10,}"),
    ("slack_webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<v4>[\w/]{20,})"),
    ("stripe_key", r"(?:sk|rk|pk)_(?:live|test)_[0-9A-Za-z]{16,}|whsec_[A-Za-z0-9+/]{24,}"),
    ("twilio_key", r"(?<!\w)(?:AC|SK)[0-9a-f]{32}(?!\w)"),
    ("sendgrid_key", r"SG\.[\w-]{16,32}\.[\w-]{32,64}"),
    ("npm_token", r"npm_[A-Za-z0-9]{36}|:_authToken\s*=\s*(?P<v5>[\w-]{20,})"),
    ("pypi_token", r"pypi-[\w-]{50,}"),
    ("jwt", r"(?<![A-Za-z0-9])eyJ[\w-]{10,2000}={0,2}\.eyJ[\w-]{8,}={0,2}(?:\.[\w-]*)?"),
    ("heroku_key", rf"HRKU-[\w-]{{36,}}|(?i:heroku)[^\n]{{0,40}}?(?P<v6>{_UUID})"),
    ("mailgun_key", r"(?<![\w-])key-[0-9a-f]{32}(?!\w)|(?<!\w)[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}(?!\w)"),
    ("mailchimp_key", r"(?<!\w)[0-9a-f]{32}-us\d{1,2}(?!\w)"),
    ("square_token", r"sq0[a-z]{3}-[\w-]{22,43}|EAAA[\w-]{60}"),
    ("discord_token", r"(?<![\w-])[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40}"),
    ("discord_webhook", r"discord(?:app)?\.com/api/webhooks/\d+/(?P<v7>[\w-]{40,})"),
    ("telegram_token", r"(?<!\w)\d{8,10}:[\w-]{35}(?![\w-])"),
    ("anthropic_key", r"sk-ant-[\w-]{20,}"),
    ("openai_key", r"(?<![\w-])sk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9](?=[\w-]*\d)[\w-]{19,}"),
    ("huggingface_token", r"(?<!\w)(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    ("digitalocean_token", r"do[oprt]_v1_[0-9a-f]{64}"),
    ("shopify_token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("databricks_token", r"(?<!\w)dapi[0-9a-f]{32}"),
    ("atlassian_token", r"AT(?:ATT|CTT|BB)[A-Za-z0-9]?[\w-]{30,}={0,2}"),
    ("vault_token", r"(?<!\w)hv[sbr]\.[\w-]{24,}"),
    ("docker_token", r"dckr_(?:pat|oat)_[\w-]{27,}"),
    ("grafana_token", r"gl(?:sa|c)_[A-Za-z0-9+/=_]{32,}"),
    ("newrelic_key", r"NR(?:AK|JS|II)-[\w-]{19,}"),
    ("linear_key", r"lin_api_[A-Za-z0-9]{32,}"),
    ("notion_token", r"(?<!\w)(?:secret_[A-Za-z0-9]{43}|ntn_[A-Za-z0-9]{40,})"),
    ("postman_key", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    ("age_key", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
)

# What to look for where a value may hold no run of 20 letters and digits.
LITERALS: dict[str, str] = {
    "Q~": "azure_client_secret",
    "hooks.slack.com/": "slack_webhook",
    "xox": "slack_token",
    "xapp-": "slack_token",
    "AccountKey=": "azure_storage_key",
    "ya29.": "gcp_oauth",
}
# Beginnings by which a run without any digit is still looked at: a random value has none now and then.
ANCHORED = re.compile(
    r"AKIA|ASIA|ABIA|ACCA|A3T|AIza|GOCSPX|ya29|gh[pousr]_|github_pat_|gl[a-z]{2,5}[-_]|GR134|xox|xapp|[srp]k[-_]|whsec_|"
    r"npm_|pypi-|eyJ|HRKU|key-|sq0|EAAA|hf_|api_org_|shp|AT(?:ATT|CTT|BB)|hv[sbr]|dckr_|NR(?:AK|JS|II)|lin_api|"
    r"secret_|ntn_|PMAK|AGE-|AKC|AP[0-9A-F]|SG"
)


@cache
def known_forms() -> re.Pattern[str]:
    """All rows in one pattern; the name of the group that matched is the row's kind."""
    return re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _FORMS), re.ASCII)


@cache
def form_of(kind: str) -> re.Pattern[str]:
    """One row's pattern."""
    return re.compile(dict(_FORMS)[kind], re.ASCII)


def value_span(match: re.Match[str]) -> tuple[int, int]:
    """Where a match of a row holds its value."""
    named = (name for name in match.groupdict() if re.fullmatch(r"v\d", name) and match[name] is not None)
    return match.span(next(named, 0))


@cache
def detect_secrets_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """(kind, pattern) of every provider that `detect-secrets` knows; loaded when the first suspect turns up."""
    # Its detectors of key words, entropy, private keys and addresses are left out: ours look at the surroundings. Only the
    # patterns are taken: to verify a match it would ask the provider, and nothing may leave the machine.
    from detect_secrets.plugins import (
        artifactory,
        aws,
        azure_storage_key,
        cloudant,
        discord,
        github_token,
        gitlab_token,
        ibm_cos_hmac,
        mailchimp,
        npm,
        openai,
        pypi_token,
        sendgrid,
        slack,
        softlayer,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )  # fmt: skip

    detectors = (
        artifactory.ArtifactoryDetector, aws.AWSKeyDetector, azure_storage_key.AzureStorageKeyDetector,
        cloudant.CloudantDetector, discord.DiscordBotTokenDetector, github_token.GitHubTokenDetector,
        gitlab_token.GitLabTokenDetector, ibm_cos_hmac.IbmCosHmacDetector, mailchimp.MailchimpDetector, npm.NpmDetector,
        openai.OpenAIDetector, pypi_token.PypiTokenDetector, sendgrid.SendGridDetector, slack.SlackDetector,
        softlayer.SoftlayerDetector, square_oauth.SquareOAuthDetector, stripe.StripeDetector,
        telegram_token.TelegramBotTokenDetector, twilio.TwilioKeyDetector,
    )  # fmt: skip
    return tuple((d.secret_type.lower().replace(" ", "_"), pattern) for d in detectors for pattern in d.denylist)
