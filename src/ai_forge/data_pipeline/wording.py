"""The wordings of the questions: `{subject}` is a block's name in backticks, with its file where that is not enough."""

TEMPLATES: dict[str, tuple[str, ...]] = {
    "purpose": (
        "What does {subject} do?",
        "What is {subject} for?",
        "What is the purpose of {subject}?",
        "Explain briefly what {subject} does.",
        "What is {subject} responsible for?",
    ),
    "parameters": (
        "Which parameters does {subject} take?",
        "What arguments does {subject} accept?",
        "What do I have to pass to {subject}?",
        "List the parameters of {subject}.",
        "How do I call {subject}: what are its parameters?",
    ),
    "exceptions": (
        "Which exceptions does {subject} {verb}?",
        "Which errors can {subject} {verb} itself?",
        "What may {subject} {verb}?",
        "Does {subject} {verb} any exceptions, and which?",
    ),
    "dependencies": (
        "What does {subject} call?",
        "Which functions does {subject} depend on?",
        "Which other functions or methods does {subject} use?",
        "On which calls does {subject} rely?",
    ),
    "callee": (
        "{subject} calls {callee}. What does that do?",
        "What is {callee}, which {subject} calls, for?",
        "Why does {subject} call {callee}: what does it do?",
        "What does the call of {callee} in {subject} do?",
    ),
    "edge_case": (
        "What happens in {subject} if {condition}?",
        "How does {subject} handle the case {condition}?",
        "What does {subject} do when {condition}?",
        "Edge case: what is the outcome of {subject} if {condition}?",
    ),
    "edge_case_which": (
        "Which edge case does {subject} guard against?",
        "Which condition does {subject} check before it goes on, and what happens then?",
        "When does {subject} stop early?",
        "Which special case does {subject} handle on its own?",
    ),
    "decorator": (
        "Why is {subject} decorated with {decorator}?",
        "What does {decorator} mean for {subject}?",
        "What is the reason for {decorator} on {subject}?",
    ),
    "bases": (
        "Which types does {subject} build on?",
        "What does {subject} inherit from?",
        "What are the base types of {subject}?",
        "On which classes or types is {subject} based?",
    ),
    "generator": (
        "Why can I loop over what {subject} gives?",
        "How does {subject} deliver its results?",
        "Which pattern does {subject} follow to produce its results?",
    ),
    "async": (
        "How must {subject} be called, and why?",
        "Is {subject} synchronous or asynchronous?",
        "What does a caller of {subject} have to do to get its result?",
    ),
    "members": (
        "Which methods does {subject} define?",
        "List the methods of {subject}.",
        "What methods does {subject} have?",
        "What can I call on {subject}?",
    ),
    "extend": (
        "How can I extend {subject}?",
        "I want to add my own variant of {subject}. What do I implement?",
        "How do I build on {subject} without changing it?",
        "Which methods would I override to extend {subject}?",
    ),
    "adapt": (
        "How can I change what {subject} does without editing it?",
        "Which options does {subject} offer to adapt it?",
        "Which parameters of {subject} are optional?",
        "How is {subject} meant to be customised?",
    ),
    "usage": (
        "How is {subject} used?",
        "Where is {subject} called, and how?",
        "Show me a call of {subject}.",
        "Which code calls {subject}?",
    ),
    "usage_test": (
        "How do the tests use {subject}?",
        "Which test calls {subject}, and how?",
        "Show me how {subject} is called in a test.",
    ),
    "returns": (
        "What does {subject} return?",
        "What is the return value of {subject}?",
        "What do I get back from {subject}?",
        "What is the result of calling {subject}?",
    ),
    "location": (
        "Where is {subject} defined?",
        "In which file do I find {subject}?",
        "Point me to the definition of {subject}.",
        "Which file and lines define {subject}?",
    ),
}

ASPECTS: dict[str, str] = {
    "purpose": "what it is for",
    "parameters": "its parameters",
    "exceptions": "what it {verb}s",
    "dependencies": "what it calls",
    "callee": "what it calls and what that does",
    "edge_case": "what happens in this case",
    "edge_case_which": "which case it guards against",
    "decorator": "why it is decorated",
    "bases": "what it builds on",
    "generator": "how it gives its results",
    "async": "how it must be called",
    "members": "its methods",
    "extend": "what can be overridden",
    "adapt": "its optional parameters",
    "usage": "who uses it",
    "usage_test": "which test uses it",
    "returns": "what it returns",
    "location": "where it is defined",
}
"""What each kind of question asks for, as the reasoning restates it before it looks the place up."""
