import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.Closeable;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.cache.ChildData;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.zookeeper.data.Stat;

/** The peer's CuratorCaches, and plain writes through Curator. */
final class Caches {
    private static final ObjectMapper JSON = new ObjectMapper();

    private final Map<String, Watched> caches = new ConcurrentHashMap<>();

    ObjectNode obey(JsonNode command, CuratorFramework client) throws Exception {
        ObjectNode result = JSON.createObjectNode();
        String name = command.path("name").asText();
        String path = command.path("path").asText();
        byte[] data = command.path("data").asText().getBytes(StandardCharsets.UTF_8);
        switch (command.path("do").asText()) {
            case "node.create":
                client.create().creatingParentsIfNeeded().forPath(path, data);
                return result;
            case "node.set":
                client.setData().forPath(path, data);
                return result;
            case "node.delete":
                client.delete().deletingChildrenIfNeeded().forPath(path);
                return result;
            case "cache.start":
                Watched watched = new Watched(client, path);
                caches.put(name, watched);
                watched.cache.start();
                return result;
            case "cache.await":
                return result.put("done", caches.get(name).initialized.await(
                        command.get("timeout_ms").asLong(), TimeUnit.MILLISECONDS));
            case "cache.nodes":
                result.set("nodes", caches.get(name).nodes());
                return result;
            case "cache.events":
                result.set("events", caches.get(name).told());
                return result;
            case "cache.close":
                caches.remove(name).close();
                return result;
            case "cache.bench":
                return bench(command, client, path);
            default:
                throw new IllegalArgumentException("unknown command: " + command);
        }
    }

    /** Start a cache of a tree so many times: how long until it is complete and every node has been told. */
    private static ObjectNode bench(JsonNode command, CuratorFramework client, String path) throws Exception {
        ObjectNode result = JSON.createObjectNode();
        ArrayNode times = result.putArray("seconds");
        for (int round = 0; round < command.get("count").asInt(); round++) {
            AtomicInteger created = new AtomicInteger();
            CountDownLatch initialized = new CountDownLatch(1);
            long start = System.nanoTime();
            CuratorCache cache = CuratorCache.build(client, path);
            cache.listenable().addListener(CuratorCacheListener.builder()
                    .forCreates(node -> created.incrementAndGet())
                    .forInitialized(initialized::countDown)
                    .build());
            cache.start();
            if (!initialized.await(60, TimeUnit.SECONDS)) {
                throw new IllegalStateException("the cache was not complete within 60 s");
            }
            times.add((System.nanoTime() - start) / 1e9);
            cache.close();
            if (created.get() != command.get("nodes").asInt()) {
                throw new IllegalStateException("the cache told of " + created.get() + " nodes");
            }
        }
        return result;
    }

    /** A cache that keeps what it has told. */
    private static final class Watched implements Closeable, CuratorCacheListener {
        final CuratorCache cache;
        final CountDownLatch initialized = new CountDownLatch(1);
        private final List<String> events = new ArrayList<>();

        Watched(CuratorFramework client, String path) {
            cache = CuratorCache.build(client, path);
            cache.listenable().addListener(this);
        }

        @Override
        public void event(CuratorCacheListener.Type type, ChildData before, ChildData after) {
            ChildData node = after == null ? before : after;
            synchronized (events) {
                events.add(type + " " + node.getPath() + " " + text(node.getData()));
            }
        }

        @Override
        public void initialized() {
            initialized.countDown();
        }

        ArrayNode told() {
            ArrayNode all = JSON.createArrayNode();
            synchronized (events) {
                events.forEach(all::add);
            }
            return all;
        }

        /** Path, data, and the zxids that tell one version of a node from every other. */
        ArrayNode nodes() {
            ArrayNode all = JSON.createArrayNode();
            cache.stream().forEach(node -> {
                Stat stat = node.getStat();
                all.addObject()
                        .put("node", node.getPath())
                        .put("data", text(node.getData()))
                        .put("czxid", stat.getCzxid())
                        .put("mzxid", stat.getMzxid());
            });
            return all;
        }

        @Override
        public void close() {
            cache.close();
        }

        private static String text(byte[] data) {
            return data == null ? "" : new String(data, StandardCharsets.UTF_8);
        }
    }
}
