// Units of Java files as the JDK's compiler parses them, one JSON line a file; paths come on standard input, one a line.

import com.sun.source.tree.ClassTree;
import com.sun.source.tree.CompilationUnitTree;
import com.sun.source.tree.LambdaExpressionTree;
import com.sun.source.tree.LineMap;
import com.sun.source.tree.MethodTree;
import com.sun.source.tree.Tree;
import com.sun.source.tree.VariableTree;
import com.sun.source.util.DocTrees;
import com.sun.source.util.JavacTask;
import com.sun.source.util.SourcePositions;
import com.sun.source.util.TreePathScanner;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import javax.tools.Diagnostic;
import javax.tools.DiagnosticCollector;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileObject;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;

public class JavaUnits {
    static class Scanner extends TreePathScanner<Void, String> {
        final CompilationUnitTree file;
        final SourcePositions positions;
        final DocTrees trees;
        final List<String> units = new ArrayList<>();

        Scanner(CompilationUnitTree file, DocTrees trees) {
            this.file = file;
            this.trees = trees;
            this.positions = trees.getSourcePositions();
        }

        void add(String kind, CharSequence name, Tree tree) {
            LineMap lines = file.getLineMap();
            long first = lines.getLineNumber(positions.getStartPosition(file, tree));
            long last = lines.getLineNumber(positions.getEndPosition(file, tree) - 1);
            boolean documented = trees.getDocComment(getCurrentPath()) != null;
            units.add(String.format("[\"%s\",\"%s\",%d,%d,%s]", kind, name, first, last, documented));
        }

        @Override
        public Void visitClass(ClassTree tree, String owner) {
            String name = tree.getSimpleName().toString();
            if (!name.isEmpty()) {
                add("type", name, tree);
            }
            return super.visitClass(tree, name.isEmpty() ? owner : name);
        }

        @Override
        public Void visitMethod(MethodTree tree, String owner) {
            boolean isConstructor = tree.getName().contentEquals("<init>");
            if (positions.getEndPosition(file, tree) >= 0) {
                add("function", isConstructor ? owner : tree.getName(), tree);
            }
            return super.visitMethod(tree, owner);
        }

        @Override
        public Void visitVariable(VariableTree tree, String owner) {
            if (tree.getInitializer() instanceof LambdaExpressionTree) {
                add("function", tree.getName(), tree);
            }
            return super.visitVariable(tree, owner);
        }
    }

    static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", " ") + '"';
    }

    public static void main(String[] arguments) throws Exception {
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        StandardJavaFileManager manager = compiler.getStandardFileManager(null, null, java.nio.charset.StandardCharsets.UTF_8);
        BufferedReader paths = new BufferedReader(new InputStreamReader(System.in));
        for (String path = paths.readLine(); path != null; path = paths.readLine()) {
            DiagnosticCollector<JavaFileObject> problems = new DiagnosticCollector<>();
            JavacTask task = (JavacTask) compiler.getTask(
                null, manager, problems, List.of("-proc:none"), null, manager.getJavaFileObjects(new File(path)));
            StringBuilder line = new StringBuilder("{\"path\":" + quoted(path));
            CompilationUnitTree file = task.parse().iterator().next();
            boolean failed = problems.getDiagnostics().stream().anyMatch(p -> p.getKind() == Diagnostic.Kind.ERROR);
            if (failed) {
                line.append(",\"error\":").append(quoted(problems.getDiagnostics().get(0).getMessage(null)));
            } else {
                Scanner scanner = new Scanner(file, DocTrees.instance(task));
                scanner.scan(file, "");
                line.append(",\"units\":[").append(String.join(",", scanner.units)).append(']');
            }
            System.out.println(line.append('}'));
        }
    }
}
