import java.lang.reflect.*;
import java.net.URI;
import java.nio.file.*;
import java.util.*;
import java.util.stream.*;

/** The public types of Java's own modules with the names of their members, as JSON. */
public class JavaNames {
  public static void main(String[] given) throws Exception {
    FileSystem runtime = FileSystems.getFileSystem(URI.create("jrt:/"));
    StringBuilder out = new StringBuilder("{");
    List<Path> paths;
    try (Stream<Path> all = Files.walk(runtime.getPath("/modules"))) {
      paths = all.filter(p -> p.toString().endsWith(".class")).sorted().collect(Collectors.toList());
    }
    boolean first = true;
    for (Path path : paths) {
      if (path.getNameCount() < 4 || !path.getName(1).toString().startsWith("java.")) continue;
      String name = path.subpath(2, path.getNameCount()).toString().replace('/', '.').replaceAll("\\.class$", "");
      if (!(name.startsWith("java.") || name.startsWith("javax.") || name.startsWith("org."))) continue;
      try {
        Class<?> type = Class.forName(name, false, ClassLoader.getPlatformClassLoader());
        if (!Modifier.isPublic(type.getModifiers()) && !Modifier.isProtected(type.getModifiers())) continue;
        Set<String> members = new TreeSet<>();
        for (Method m : type.getMethods()) members.add(m.getName());
        for (Method m : type.getDeclaredMethods()) if (!Modifier.isPrivate(m.getModifiers())) members.add(m.getName());
        for (Field f : type.getFields()) members.add(f.getName());
        for (Class<?> c : type.getClasses()) members.add(c.getSimpleName());
        if (!first) out.append(",");
        first = false;
        out.append("\"").append(name.replace('$', '.')).append("\":[");
        out.append(members.stream().map(m -> "\"" + m + "\"").collect(Collectors.joining(","))).append("]");
      } catch (Throwable error) { // a type whose module is not there
      }
    }
    System.out.println(out.append("}"));
  }
}
