"""Passwords that people chose, by where they stand; and what stands in the same places and is none."""
# ruff: noqa: E501

import pytest

from ai_forge.data_pipeline.mining.parsing import parse
from ai_forge.data_pipeline.secrets.masking import scrub, scrub_text

CHOSEN = (
    ("hunterzwei", 'def connect(host, password="hunterzwei"):'),
    ("sommerregen", 'def f(password: str = "sommerregen") -> None:'),
    ("ss7word9x", 'password = "pa\\"ss7word9x"'),
    ("Zw3ifel99", "mysqldump --password Zw3ifel99 db"),
    ("Zw3ifel99", "tool --password=Zw3ifel99 db"),
    ("Kd93jfkQz1", 'tool --api-key "Kd93jfkQz1" run'),
    ("Zw3ifel99x", "redis-cli -a Zw3ifel99x ping"),
    ("tigerlilie", "the password is `tigerlilie`."),
    ("Wolkenkratzer", 'The admin password is "Wolkenkratzer".'),
    ("Zw3ifel99", "The password for root is Zw3ifel99."),
    ("Kast4nie", 'var password = "Kast4nie"'),
    ("kastanienbaum", '\tpassword := "kastanienbaum"'),
    ("kastanie7", 'const dbPassword string = "kastanie7"'),
    ("kastanie7", 'let password = "kastanie7";'),
    ("kastanienbaum", 'const PASSWORD: &str = "kastanienbaum";'),
    ("kastanienbaum", '#define DB_PASSWORD "kastanienbaum"'),
    ("kastanie7", '#define PASSWORD "kastanie7"'),
    ("kastanie7", "DB_PASS=kastanie7"),
    ("kastanienbaum", "DB_PASS=kastanienbaum"),
    ("kastanienbaum", 'export DB_PASS="kastanienbaum"'),
    ("kastanienbaum", "<password>kastanienbaum</password>"),
    ("kastanie7", '<property name="password" value="kastanie7"/>'),
    ("Kastanie 7", "<db:passwd>Kastanie 7 baum</db:passwd>"),
    ("kastanienbaum", 'password = os.environ.get("DB_PASSWORD", "kastanienbaum")'),
    ("kastanie7", 'password = os.getenv("DB_PASSWORD", default="kastanie7")'),
    ("kastanienbaum", "password = process.env.DB_PASSWORD || 'kastanienbaum'"),
    ("kastanienbaum", "password = ENV.fetch('DB_PASSWORD', 'kastanienbaum')"),
    ("kastanienbaum", 'parser.add_argument("--password", default="kastanienbaum")'),
    ("kastanie7", 'parser.add_argument("--db-password", help="the password", default="kastanie7")'),
    ("kastanienbaum", '@click.option("--password", default="kastanienbaum")'),
    ("kastanienbaum", 'password: Annotated[str, Field(description="x")] = "kastanienbaum"'),
    ("kastanienbaum", 'password: str = Field(default="kastanienbaum")'),
    ("kastanienbaum7", "password: kastanienbaum7"),
    ("kastanienbaum", '  password: "kastanienbaum"'),
    ("kastanie7", "spring.datasource.password=kastanie7"),
    ("kastanienbaum", "ALTER USER app WITH PASSWORD 'kastanienbaum';"),
    ("kastanienbaum", "CREATE USER app IDENTIFIED BY 'kastanienbaum';"),
    ("kastanie7", "wget --user=a --http-password=kastanie7 x"),
    ("Kastanie77", "docker login -u a -p Kastanie77 registry"),
    ("kastanie7", "machine example.com login me password kastanie7"),
    ("sswordx9", 'password="\\u0070a7sswordx9"'),
    ("kastanienbaum", "$password = 'kastanienbaum';"),
    ("kastanienbaum", 'String password = "kastanienbaum";'),
    ("kastanie7", 'private static final String DB_PWD = "kastanie7";'),
    ("kastanie7", 'setPassword("kastanie7")'),
    ("kastanienbaum", '{:password, "kastanienbaum"}'),
    ("kastanienbaum", ':password => "kastanienbaum"'),
    ("kastanie7", "Das Passwort lautet `kastanie7`"),
    ("mond Schein 7", "'admin_password': 'mond Schein 7',"),
    ("Gr4uer Star", "secret = 'Gr4uer Star'"),
    ("Re!her_77", "sshpass -p Re!her_77 scp a b"),
    ("spAtz-99x", "curl --user me:spAtz-99x https://a.b/c"),
    ("He1der_kraut", "mysqldump -uroot -p'He1der_kraut' shop"),
    ("fink7!auf", "openssl enc -pass pass:fink7!auf -in a"),
    ("drosselbart", "authenticate(user, password='drosselbart')"),
    ("kastanienbaum", '"note": "password = \\"kastanienbaum\\""'),
    ("kastanienbaum", '"    f(host, password=\\"kastanienbaum\\")\\n",'),
    ("kastanienbaum", '"x = os.environ.get(\\"DB_PASSWORD\\", \\"kastanienbaum\\")"'),
    ("KohQ&RK-CLbTD2ul#", 'password = """KohQ&RK-CLbTD2ul#"""'),
    ("cOwsg5u@HWV-C", "The ADMIN_PASSWORD is ``cOwsg5u@HWV-C``."),
    ("kO158UXO-0^pw", "Its db_passwd is kO158UXO-0^pw."),
    ("Kastanie47", "Always sign in first. DB_PASS=Kastanie47"),
    ("Kastanie47", "    # DB_PASS=Kastanie47"),
    ("Kastanie47", "Why does it fail with DB_PASS=Kastanie47?"),
)
NOT_CHOSEN = (
    'password = "" if user == "someone" else None',
    "make NUM_PASS=10000 run",
    "cd $PWD && ls PWD=/home/me/code1",
    'def login(password="password"): pass',
    'password = "password"',
    'password = ""',
    "--password PASSWORD",
    "--password $PASSWORD",
    '--password "$1"',
    "--password <password>",
    'parser.add_argument("--password", help="The password of the user")',
    'password = getpass.getpass("Password: ")',
    "the password is wrong",
    "The password is required.",
    "the password is stored in a file",
    'raise ValueError("password must be longer than 8 characters")',
    'token = "identifier"',
    'if token == "access_token":',
    '"password": "The password of the account",',
    'error = {"password": "This field is required."}',
    "password: string",
    "password: str",
    "password = None",
    'def f(password: str = "") -> None:',
    'token_type = "bearer"',
    'secret_name = "my-secret"',
    '"password": {"type": "string"}',
    '<input type="password" name="password" placeholder="Your password">',
    "<label>Password</label>",
    'password_hash = "sha256"',
    'PASSWORD_FIELD = "user_password"',
    'token.type == "NAME"',
    'key = "some value here"',
    'os.environ.get("DB_PASSWORD", "")',
    'os.environ["DB_PASSWORD"]',
    "docker run -p 8080:80 image",
    "mkdir -p /tmp/x1",
    "ssh -p 2222 host",
    "cp -p a1 b2",
    'curl -u "$USER:$PASS" x',
    "curl -u user:password x",
    'tokens = ["a", "b"]',
    'token = "EOF"',
    "msg = 'Invalid password for user'",
    "password = input('Enter your password: ')",
    '"token": "string"',
    'label: "Password (again)"',
    "the token is `str`",
    'the token is "None"',
    "the secret is that it works",
    "<password></password>",
    "<password>${db.password}</password>",
    "PASSWORD_RESET_TIMEOUT=259200",
    "token = tokenize.NAME",
    'password = "{{ password }}"',
    'password = "%s"',
    "passwords = load('file')",
    'self.assertEqual(token, "expected token")',
    '"secret": "Client secret of the app"',
    '#define TOKEN_IDENT "identifier"',
    "#define PASSWORD_LEN 32",
    "install -p 755",
    "perl -p -i",
    "-p1 < patch.diff",
    "patch -p1 < a1",
)


@pytest.mark.parametrize(("value", "text"), CHOSEN)
def test_a_chosen_password_is_masked(value: str, text: str) -> None:
    clean = scrub_text(text)
    assert value not in clean
    assert scrub_text(clean) == clean, "masking again changes nothing"


@pytest.mark.parametrize("text", NOT_CHOSEN)
def test_this_is_no_password(text: str) -> None:
    assert scrub_text(text) == text


IN_FUNCTIONS = {
    "python": "def f(host, password='kastanienbaum', port=1):\n    g(token=q8Zr2LmX0vTy5KdJ3bWe, a=1)\n    return '\\nq8Zr2LmX0vTy5KdJ3bWe'\n",
    "javascript": "function f() {\n  const password = `kastanie7`;\n  return g('\\nq8Zr2LmX0vTy5KdJ3bWe', { password: 'blue 7!' });\n}\n",
    "java": 'class A {\n  String f(String a) {\n    String password = "pa\\"ss7word9x";\n    return "\\tq8Zr2LmX0vTy5KdJ3bWe";\n  }\n}\n',
    "go": 'package a\n\nfunc f() string {\n\tpassword := "kastanienbaum"\n\treturn password + "\\nq8Zr2LmX0vTy5KdJ3bWe"\n}\n',
    "rust": 'fn f() -> String {\n    let password: &str = "kastanienbaum";\n    g("\\nq8Zr2LmX0vTy5KdJ3bWe")\n}\n',
    "bash": "f() {\n  mysql -pK4stanie_x < a.sql\n  curl -u me:K4stanie-x https://a.b\n  PGPASSWORD=K4stanie-x psql\n}\n",
    "c": '#define PASSWORD "kastanie7"\nint f(void)\n{\n    return g("\\nq8Zr2LmX0vTy5KdJ3bWe", PASSWORD);\n}\n',
}


@pytest.mark.parametrize("language", IN_FUNCTIONS)
def test_a_function_without_its_secrets_still_parses(language: str) -> None:
    clean = scrub(IN_FUNCTIONS[language].encode())
    assert len(clean.spans) >= 2
    result = parse(clean.content, language)
    assert result is not None
    assert not result.has_error, clean.content.decode()
    assert any(unit.name.endswith("f") for unit in result.units)
