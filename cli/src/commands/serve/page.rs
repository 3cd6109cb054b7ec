//! The chat page: its files, which are inside the program.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use super::app::App;

/// Nothing from anywhere else, and nothing inline: what a model writes can be no program here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Address, type and text of each file.
const FILES: [(&str, &str, &str); 10] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/client.js", SCRIPT, include_str!("page/client.js")),
    ("/elements.js", SCRIPT, include_str!("page/elements.js")),
    ("/markdown.js", SCRIPT, include_str!("page/markdown.js")),
    ("/message.js", SCRIPT, include_str!("page/message.js")),
    ("/settings.js", SCRIPT, include_str!("page/settings.js")),
    ("/sidebar.js", SCRIPT, include_str!("page/sidebar.js")),
    ("/store.js", SCRIPT, include_str!("page/store.js")),
];

/// `router` with the page.
pub(super) fn add(router: Router<Arc<App>>) -> Router<Arc<App>> {
    FILES.into_iter().fold(router, |router, (address, kind, text)| {
        let file = move || async move {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, text).into_response()
        };
        router.route(address, get(file))
    })
}
