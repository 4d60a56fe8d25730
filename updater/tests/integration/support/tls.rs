//! An https front before the proxy, as a load balancer is.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use updater::registry::{Access, Registry};

use super::access;
use super::stock::must;

/// What `openssl` makes: a certificate of 127.0.0.1 that is no authority's. `req` knows no dates
/// but those from now on, so `ca` signs.
const REQUEST: &str = "[req]\ndistinguished_name=dn\n[dn]\n[ca]\ndefault_ca=own\n\
    [own]\ndatabase=index.txt\nrand_serial=yes\nnew_certs_dir=.\ndefault_md=sha256\npolicy=any\n\
    x509_extensions=v3\n[any]\ncommonName=supplied\n\
    [v3]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n";

/// A front that ends with the test.
pub struct Front {
    authority: String,
    certificate: Vec<u8>,
}

impl Front {
    /// Starts one before `upstream`, with a certificate of its own made in `folder`.
    pub async fn start(folder: &Path, upstream: SocketAddr) -> Front {
        Front::start_from(folder, upstream, 2020).await
    }

    /// The same with a certificate that is valid from the beginning of `year` on.
    pub async fn start_from(folder: &Path, upstream: SocketAddr, year: u32) -> Front {
        fs::write(folder.join("tls.cnf"), REQUEST).unwrap();
        fs::write(folder.join("index.txt"), "").unwrap();
        let request = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
            -subj /CN=front -config tls.cnf -keyout tls.key -out tls.csr";
        let sign = format!(
            "ca -selfsign -batch -notext -config tls.cnf -keyfile tls.key -in tls.csr \
             -startdate {year}0101000000Z -enddate {}0101000000Z -out tls.pem",
            year + 80
        );
        for words in [request, &sign] {
            must("openssl", folder, &words.split_whitespace().collect::<Vec<_>>());
        }
        let certificate = fs::read(folder.join("tls.pem")).unwrap();
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("tls.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(acceptor.clone(), stream, upstream));
            }
        });
        Front { authority, certificate }
    }

    /// Our client, which trusts the front's certificate and has a login.
    pub fn client(&self) -> Registry {
        let access = Access {
            plain_http: false,
            credentials: Some(super::credentials()),
            extra_ca: Some(self.certificate.clone()),
            ..access()
        };
        Registry::new(&self.authority, access).unwrap()
    }
}

/// Passes one connection on, until either side ends it.
async fn pass(acceptor: TlsAcceptor, stream: TcpStream, upstream: SocketAddr) {
    // A client that refuses the certificate, or goes away, is what some tests are about.
    let Ok(mut inside) = acceptor.accept(stream).await else { return };
    let mut behind = TcpStream::connect(upstream).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut inside, &mut behind).await;
}
